// Adds a delay to every request of HTTP/1.1 connections without touching their bytes or slowing their answers.
//
//   delay_proxy LISTEN-PORT TARGET-PORT DELAY-MICROSECONDS      (both on 127.0.0.1; prints "ready")
//
// Client → server: what arrives in one read(2) is one request (clients here do not pipeline, and a request without a
// body fits one segment on loopback); it is passed on DELAY later. Server → client: splice(2) through a pipe, no copy
// into this process, so the proxy is no bottleneck (`Benchmarks/run` measures it with a delay of 0).
// Two threads a connection.
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long delay_ns;
static int target_port;
struct pair { int client, server; };

static struct sockaddr_in local(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}
static void no_delay(int sock) {
    int one = 1;
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void *answers(void *raw) {
    struct pair *p = raw;
    int pipe_ends[2];
    if (pipe2(pipe_ends, O_CLOEXEC) == 0) {
        fcntl(pipe_ends[1], F_SETPIPE_SZ, 1 << 20);
        ssize_t got;
        while ((got = splice(p->server, NULL, pipe_ends[1], NULL, 1 << 20, SPLICE_F_MOVE)) > 0) {
            while (got > 0) {
                ssize_t put = splice(pipe_ends[0], NULL, p->client, NULL, (size_t)got, SPLICE_F_MOVE);
                if (put <= 0) goto end;
                got -= put;
            }
        }
    end:
        close(pipe_ends[0]);
        close(pipe_ends[1]);
    }
    shutdown(p->client, SHUT_RDWR);
    shutdown(p->server, SHUT_RDWR);
    return NULL;
}

static void *requests(void *raw) {
    struct pair *p = raw;
    char bytes[64 * 1024];
    pthread_t other;
    prctl(PR_SET_TIMERSLACK, 1000);
    struct sockaddr_in address = local(target_port);
    p->server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->server >= 0 && connect(p->server, (struct sockaddr *)&address, sizeof address) == 0) {
        no_delay(p->server);
        if (pthread_create(&other, NULL, answers, p) == 0) {
            ssize_t got;
            while ((got = read(p->client, bytes, sizeof bytes)) > 0) {
                struct timespec wait = {delay_ns / 1000000000, delay_ns % 1000000000};
                while (delay_ns > 0 && nanosleep(&wait, &wait) < 0 && errno == EINTR) { }
                for (ssize_t done = 0; done < got;) {
                    ssize_t put = write(p->server, bytes + done, (size_t)(got - done));
                    if (put <= 0) { got = 0; break; }
                    done += put;
                }
                if (got == 0) break;
            }
            shutdown(p->server, SHUT_RDWR);
            pthread_join(other, NULL);
        }
    }
    if (p->server >= 0) close(p->server);
    close(p->client);
    free(p);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: delay_proxy LISTEN-PORT TARGET-PORT DELAY-MICROSECONDS\n"); return 2; }
    target_port = atoi(argv[2]);
    delay_ns = atol(argv[3]) * 1000;
    signal(SIGPIPE, SIG_IGN);
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = local(atoi(argv[1]));
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (sock < 0 || bind(sock, (struct sockaddr *)&address, sizeof address) < 0 || listen(sock, 128) < 0) {
        fprintf(stderr, "delay_proxy: port %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    puts("ready");
    fflush(stdout);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    for (;;) {
        int client = accept4(sock, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0) continue;
        no_delay(client);
        struct pair *p = calloc(1, sizeof *p);
        pthread_t thread;
        if (!p) { close(client); continue; }
        p->client = client;
        if (pthread_create(&thread, &attributes, requests, p) != 0) { close(client); free(p); }
    }
}
