internal import GRDB

/// The tables: docs/formats/catalogue.md. Migrations are only ever added.
enum Schema {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.create(table: "image") { table in
                table.primaryKey("manifest", .text)
                table.column("repository", .text).notNull()
                table.column("lastUsed", .double).notNull()
                table.column("pinned", .boolean).notNull()
                table.column("bootstrapSize", .integer).notNull()
            }
            try database.create(table: "reference") { table in
                table.primaryKey("name", .text)
                table.column("manifest", .text).notNull().indexed().references("image", onDelete: .cascade)
            }
            try database.create(table: "blob") { table in
                table.autoIncrementedPrimaryKey("id")
                table.column("digest", .text).notNull()
                table.column("indexDigest", .text).notNull()
                table.column("rawSize", .integer).notNull()
                table.column("chunkCount", .integer).notNull()
                table.column("hasPlaces", .boolean).notNull()
                table.uniqueKey(["digest", "indexDigest"])
            }
            try database.create(table: "imageBlob") { table in
                table.column("manifest", .text).notNull().references("image", onDelete: .cascade)
                table.column("position", .integer).notNull()
                table.column("blob", .integer).notNull().indexed().references("blob")
                table.primaryKey(["manifest", "position"])
            }
            // Content → places. The first eight bytes of a digest name content well enough: the gate hashes whatever is
            // copied, so two contents that share them cost a fetch and nothing else.
            try database.create(table: "place", options: .withoutRowID) { table in
                table.column("content", .integer).notNull()
                table.column("blob", .integer).notNull()
                table.column("chunk", .integer).notNull()
                table.primaryKey(["content", "blob", "chunk"])
            }
        }
        return migrator
    }
}
