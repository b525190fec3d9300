// libzstd: one frame a chunk, see docs/formats/image.md.
#include <zstd.h>
#include <zstd_errors.h>
