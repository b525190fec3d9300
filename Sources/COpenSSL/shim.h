// libcrypto's EVP interface: SHA-256 with the CPU's SHA extensions, HMAC for keyed ids.
#include <openssl/evp.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
