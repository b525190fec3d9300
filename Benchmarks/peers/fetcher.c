// Bare libcurl over mutual TLS 1.3: the floor of peer figures, and the load of serving ones.
//
//   fetcher load CONNECTIONS SECONDS CA CERT KEY CONNECT_TO URL…   bytes and seconds
//   fetcher times COUNT CA CERT KEY CONNECT_TO URL                 microseconds of each GET, one connection, one a line
//
// One thread a connection, each kept alive. TLS_AES_128_GCM_SHA256 for everybody, so that all pay for the same cipher.
#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *ca, *cert, *key, *target;
static char **urls;
static int url_count;
static double end_at;
static atomic_ullong total;
static char memory[4 << 20];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

struct sink {
    size_t used;
    int keeps;
};

static size_t take(char *data, size_t size, size_t count, void *user) {
    struct sink *sink = user;
    const size_t bytes = size * count;
    if (sink->keeps && sink->used + bytes <= sizeof memory) memcpy(memory + sink->used, data, bytes);
    sink->used += bytes;
    return bytes;
}

static CURL *make(struct sink *sink) {
    CURL *easy = curl_easy_init();
    if (!easy) exit(1);
    struct curl_slist *connect = curl_slist_append(NULL, target);
    curl_easy_setopt(easy, CURLOPT_CONNECT_TO, connect);
    curl_easy_setopt(easy, CURLOPT_CAINFO, ca);
    curl_easy_setopt(easy, CURLOPT_SSLCERT, cert);
    curl_easy_setopt(easy, CURLOPT_SSLKEY, key);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    curl_easy_setopt(easy, CURLOPT_TLS13_CIPHERS, "TLS_AES_128_GCM_SHA256");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 524288L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, sink);
    return easy;
}

static void get(CURL *easy, const char *url) {
    curl_easy_setopt(easy, CURLOPT_URL, url);
    const CURLcode code = curl_easy_perform(easy);
    if (code) {
        fprintf(stderr, "%s: %s\n", url, curl_easy_strerror(code));
        exit(1);
    }
}

static void *load(void *argument) {
    int at = (int)(long)argument;
    struct sink sink = {0, 0};
    CURL *easy = make(&sink);
    while (now() < end_at) {
        sink.used = 0;
        get(easy, urls[at++ % url_count]);
        total += sink.used;
    }
    curl_easy_cleanup(easy);
    return NULL;
}

int main(int count, char **words) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (count >= 9 && !strcmp(words[1], "load")) {
        const int connections = atoi(words[2]);
        ca = words[4], cert = words[5], key = words[6], target = words[7];
        urls = words + 8, url_count = count - 8;
        pthread_t threads[256];
        const double start = now();
        end_at = start + atof(words[3]);
        for (long at = 0; at < connections && at < 256; at++) pthread_create(&threads[at], NULL, load, (void *)at);
        for (long at = 0; at < connections && at < 256; at++) pthread_join(threads[at], NULL);
        printf("%llu %f\n", (unsigned long long)total, now() - start);
        return 0;
    }
    if (count == 8 && !strcmp(words[1], "times")) {
        ca = words[3], cert = words[4], key = words[5], target = words[6];
        struct sink sink = {0, 1};
        CURL *easy = make(&sink);
        for (int at = 0; at < atoi(words[2]); at++) {
            const double start = now();
            sink.used = 0;
            get(easy, words[7]);
            printf("%.1f\n", (now() - start) * 1e6);
        }
        return 0;
    }
    fprintf(stderr, "usage: see the head of fetcher.c\n");
    return 2;
}
