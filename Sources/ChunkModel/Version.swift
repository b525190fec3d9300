/// The version of this release: what every program says with `--version`, in its log and as its user agent.
package let chunkdVersion = "0.1.0"
