// libcurl for Swift: curl_easy_setopt(3), curl_easy_getinfo(3) and curl_multi_setopt(3) are variadic, which Swift
// cannot call. Each wrapper fixes one argument type. Nothing else lives here.
//
// Needs libcurl 7.85 (CURLOPT_PROTOCOLS_STR); Debian 12 has 7.88.
#ifndef CHUNKD_CCURL_H
#define CHUNKD_CCURL_H

#include <curl/curl.h>

#if LIBCURL_VERSION_NUM < 0x075500
#error "chunkd needs libcurl 7.85 or newer"
#endif

// Types of the callbacks, as libcurl documents them.
typedef size_t (*ccurl_data_callback)(char *data, size_t size, size_t count, void *user);
typedef int (*ccurl_seek_callback)(void *user, curl_off_t offset, int origin);
typedef CURLcode (*ccurl_tls_callback)(CURL *easy, void *context, void *user);
typedef int (*ccurl_prereq_callback)(void *user, char *remote_ip, char *local_ip, int remote_port, int local_port);

static inline CURLcode ccurl_set_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_offset(CURL *easy, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_string(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_pointer(CURL *easy, CURLoption option, void *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_list(CURL *easy, CURLoption option, struct curl_slist *value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_data_callback(CURL *easy, CURLoption option, ccurl_data_callback value) {
    return curl_easy_setopt(easy, option, value);
}
static inline CURLcode ccurl_set_seek_callback(CURL *easy, ccurl_seek_callback value) {
    return curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, value);
}
static inline CURLcode ccurl_set_prereq_callback(CURL *easy, ccurl_prereq_callback value) {
    return curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, value);
}
static inline CURLcode ccurl_set_tls_callback(CURL *easy, ccurl_tls_callback value) {
    return curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, value);
}
static inline CURLMcode ccurl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}
static inline CURLcode ccurl_get_long(CURL *easy, CURLINFO info, long *value) {
    return curl_easy_getinfo(easy, info, value);
}
static inline CURLcode ccurl_get_offset(CURL *easy, CURLINFO info, curl_off_t *value) {
    return curl_easy_getinfo(easy, info, value);
}
static inline CURLcode ccurl_get_string(CURL *easy, CURLINFO info, const char **value) {
    return curl_easy_getinfo(easy, info, value);
}

// A message of curl_multi_info_read(3), whose data is a union.
static inline CURLcode ccurl_message_result(const CURLMsg *message) { return message->data.result; }

#endif
