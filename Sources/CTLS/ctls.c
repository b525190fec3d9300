#define _GNU_SOURCE
#include "CTLS.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

// Certificates of a chain that are looked at; a longer one is refused before.
#define MAX_CHAIN 8

int ctls_uri_names(const X509 *certificate, char *first, size_t capacity, size_t *length) {
    int critical = 0;
    *length = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, NULL);
    // critical: -1 none, -2 several such extensions.
    if (!names) return critical == -1 ? 0 : -1;
    int found = 0;
    for (int at = 0; at < sk_GENERAL_NAME_num(names); at++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, at);
        if (name->type != GEN_URI) continue;
        if (found++ > 0) continue;
        const int bytes = ASN1_STRING_length(name->d.uniformResourceIdentifier);
        if (bytes < 0 || (size_t)bytes > capacity) {
            found = -1;
            break;
        }
        memcpy(first, ASN1_STRING_get0_data(name->d.uniformResourceIdentifier), (size_t)bytes);
        *length = (size_t)bytes;
    }
    GENERAL_NAMES_free(names);
    return found;
}

int ctls_common_name(const X509 *certificate, char *text, int capacity) {
    return X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, text, capacity) > 0;
}

static int no_pass_phrase(char *buffer, int size, int writing, void *user) {
    (void)buffer, (void)size, (void)writing, (void)user;
    return -1;
}

EVP_PKEY *ctls_private_key(const char *pem, int length) {
    BIO *bio = BIO_new_mem_buf(pem, length);
    if (!bio) return NULL;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

X509 *ctls_next_certificate(BIO *pem, int *damaged) {
    X509 *certificate = PEM_read_bio_X509(pem, NULL, no_pass_phrase, NULL);
    const unsigned long error = ERR_peek_last_error();
    // The end of the text is told as an error too: nothing more that starts like PEM.
    *damaged = !certificate && !(ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE);
    ERR_clear_error();
    return certificate;
}

int ctls_verify(
    X509_STORE *store, X509 *leaf, X509 *const *between, int count, int depth, void (*each)(X509 *, void *), void *user) {
    int result = X509_V_ERR_OUT_OF_MEM;
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    STACK_OF(X509) *untrusted = sk_X509_new_null();
    if (!context || !untrusted) goto done;
    for (int at = 0; at < count; at++)
        if (!sk_X509_push(untrusted, between[at])) goto done;
    if (!X509_STORE_CTX_init(context, store, leaf, untrusted)) goto done;
    X509_VERIFY_PARAM *how = X509_STORE_CTX_get0_param(context);
    // Times with a skew are the caller's. Every certificate of the bundle is an anchor, also an intermediate one.
    X509_VERIFY_PARAM_set_flags(how, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
    // 112 bits: RSA from 2048, curves from P-224, no SHA-1 (SSL_CTX_set_security_level(3)).
    X509_VERIFY_PARAM_set_auth_level(how, 2);
    X509_VERIFY_PARAM_set_depth(how, depth);
    const int good = X509_verify_cert(context);
    result = X509_STORE_CTX_get_error(context);
    if (good <= 0) {
        if (result == X509_V_OK) result = X509_V_ERR_UNSPECIFIED;
        goto done;
    }
    result = X509_V_OK;
    const STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(context);
    for (int at = 0; at < sk_X509_num(chain); at++) each(sk_X509_value(chain, at), user);
done:
    sk_X509_free(untrusted);
    X509_STORE_CTX_free(context);
    ERR_clear_error();
    return result;
}

int ctls_use(SSL_CTX *context, EVP_PKEY *key, X509 *const *chain, int count) {
    int good = count > 0 && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) &&
               SSL_CTX_use_certificate(context, chain[0]) == 1 && SSL_CTX_use_PrivateKey(context, key) == 1;
    for (int at = 1; good && at < count; at++) good = SSL_CTX_add1_chain_cert(context, chain[at]) == 1;
    return good;
}

// What hangs on an SSL_CTX, freed with it.
struct held {
    ctls_check check;
    void *user;
    void (*release)(void *);
};

static int held_index = -1;
static pthread_once_t held_once = PTHREAD_ONCE_INIT;

static void held_free(void *parent, void *pointer, CRYPTO_EX_DATA *data, int index, long number, void *argument) {
    (void)parent, (void)data, (void)index, (void)number, (void)argument;
    struct held *held = pointer;
    if (!held) return;
    held->release(held->user);
    OPENSSL_free(held);
}

static void held_start(void) { held_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, held_free); }

static int check_chain(X509_STORE_CTX *store, void *pointer) {
    const struct held *held = pointer;
    unsigned char *der[MAX_CHAIN] = {0};
    size_t lengths[MAX_CHAIN] = {0};
    int count = 0, good = 0;
    // What came from the other side; the leaf is its first.
    const STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store);
    const int all = sent ? sk_X509_num(sent) : 0;
    if (all < 1 || all > MAX_CHAIN) goto done;
    for (; count < all; count++) {
        const int length = i2d_X509(sk_X509_value(sent, count), &der[count]);
        if (length <= 0) goto done;
        lengths[count] = (size_t)length;
    }
    good = held->check((const unsigned char *const *)der, lengths, count, held->user) == 1;
done:
    for (int at = 0; at < count; at++) OPENSSL_free(der[at]);
    X509_STORE_CTX_set_error(store, good ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
    return good;
}

int ctls_set_check(SSL_CTX *context, ctls_check check, void *user, void (*release)(void *)) {
    pthread_once(&held_once, held_start);
    if (held_index < 0) return 0;
    struct held *held = OPENSSL_malloc(sizeof *held);
    if (!held) return 0;
    *held = (struct held){check, user, release};
    if (!SSL_CTX_set_ex_data(context, held_index, held)) {
        OPENSSL_free(held);
        return 0;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(context, check_chain, held);
    return 1;
}

int64_t ctls_seconds(const ASN1_TIME *time, int *bad) {
    struct tm fields = {0};
    *bad = !ASN1_TIME_to_tm(time, &fields);
    return *bad ? 0 : (int64_t)timegm(&fields);
}
