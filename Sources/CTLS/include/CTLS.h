// X.509 and TLS of OpenSSL for Swift: what is a macro there, or a stack of pointers, as functions; and the two callbacks
// that must not outlive what they point to. Everything else of OpenSSL is called from Swift by its own name.
//
// Apart from COpenSSL, which has libcrypto alone: chunkgate hashes and must not link TLS.
#ifndef CHUNKD_CTLS_H
#define CHUNKD_CTLS_H

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error "chunkd needs OpenSSL 3.0 or newer"
#endif

// Copies the first URI name of the subject alternative names, not terminated, and sets `length` to its bytes. Returns
// how many URI names there are; -1 when the extension is malformed or the first does not fit.
int ctls_uri_names(const X509 *certificate, char *first, size_t capacity, size_t *length);

// The common name of the subject as text, terminated and cut to fit; 0 when there is none.
int ctls_common_name(const X509 *certificate, char *text, int capacity);

// A private key from PEM; an encrypted one is refused, nobody is asked for a pass phrase.
EVP_PKEY *ctls_private_key(const char *pem, int length);

// The next certificate of a PEM text; NULL at its end or on damage (then `*damaged` is 1).
X509 *ctls_next_certificate(BIO *pem, int *damaged);

// Verifies `leaf` with the certificates of `between` against `store`, but for all times, which the caller checks with
// `each` on every certificate of the chain found. Returns X509_V_OK or OpenSSL's error.
int ctls_verify(
    X509_STORE *store, X509 *leaf, X509 *const *between, int count, int depth, void (*each)(X509 *, void *), void *user);

// Makes an SSL_CTX use a key and a chain, leaf first, and speak TLS 1.3 alone. 1 when it did.
int ctls_use(SSL_CTX *context, EVP_PKEY *key, X509 *const *chain, int count);

// Has `check` decide about the other side's certificates, in place of OpenSSL's own verification: it is given the leaf
// and what else was sent, as DER, and returns 1 to go on. `release` is called with `user` when the SSL_CTX goes. 1 when
// it was set; then `user` belongs to the SSL_CTX.
typedef int (*ctls_check)(const unsigned char *const *der, const size_t *lengths, int count, void *user);
int ctls_set_check(SSL_CTX *context, ctls_check check, void *user, void (*release)(void *));

// Seconds since 1970 of an ASN.1 time; 0 and `*bad` = 1 when it is malformed.
int64_t ctls_seconds(const ASN1_TIME *time, int *bad);

#endif
