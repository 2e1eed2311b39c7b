/* Readers that wait: N connections on which one request each is sent and one answer each is awaited, and a prober beside them.

   usage: waiters PORT CONNECTIONS PER_ADDRESS
   Commands on standard input, answered by a line each; times are CLOCK_MONOTONIC in nanoseconds.
     ask LENGTH\n<request>     send the request on every connection            asked
     probe LENGTH\n<request>   what one more connection asks during `wait`     probing
     wait SECONDS              until every reader is answered                  answered COUNT OTHER_STATUS FIRST LAST STALL PROBES
   STALL is the longest that the prober waited for an answer, PROBES how many it got, about one per millisecond.
   It ends with its standard input. Readers come from 127.0.0.2 on, PER_ADDRESS from each address. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD 16384
#define PROBE_GAP 1000000
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

struct reader {
    int fd, used, status;
    long left; /* of the body; -1 while the head is being read, -2 when nothing is awaited */
    char head[HEAD];
};

static struct reader *readers, prober;
static int total, waiting, others, polling;
static int64_t first, last, stall, probes, asked_at, next_probe;
static char probe_request[HEAD];
static int probe_length;
static char scratch[65536];

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int dial(int port, uint32_t source) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(source)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0) die("socket");
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) die("connect");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void send_all(int fd, const char *data, long length) {
    if (send(fd, data, length, MSG_NOSIGNAL) != length) die("send");
}

static void complain(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* Read a whole head of an answer, of which `got` bytes are there; 0 where it is not whole yet. */
static int begin(struct reader *r, const char *text, long got) {
    const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\r\ncontent-length:");
    if (!end) return 0;
    r->status = atoi(text + 9);
    r->left = (length && length < end ? atol(length + 17) : 0) - (got - (end + 4 - text));
    return 1;
}

/* Take what is there; 1 when the answer is whole. Nearly always all of it comes at once, by one call of the system. */
static int take(struct reader *r) {
    for (;;) {
        ssize_t got = recv(r->fd, scratch, sizeof scratch - 1, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
        if (got <= 0) complain("a connection was closed");
        if (r->left == -2) complain("an answer to no question");
        scratch[got] = 0;
        if (r->left >= 0) {
            r->left -= got;
        } else if (r->used || !begin(r, scratch, got)) {
            if (r->used + got >= HEAD) complain("the head of an answer came in pieces and is too long");
            memcpy(r->head + r->used, scratch, got + 1);
            r->used += got;
            if (!begin(r, r->head, r->used)) continue;
        }
        if (r->left < 0) complain("an answer is longer than it says");
        if (r->left == 0) return 1;
    }
}

static void probe(void) {
    if (!probe_length) return;
    int64_t at = now();
    if (prober.left == -2) {
        if (at < next_probe) return;
        prober.left = -1;
        prober.used = 0;
        asked_at = at;
        send_all(prober.fd, probe_request, probe_length);
    } else if (take(&prober)) {
        at = now();
        prober.left = -2;
        next_probe = at + PROBE_GAP;
        probes++;
        if (at - asked_at > stall) stall = at - asked_at;
    }
}

/* Serve the sockets once; the prober's is looked at between slices, so that what is queued here does not delay it. */
static void turn(void) {
    struct epoll_event events[32];
    int ready = epoll_wait(polling, events, 32, probe_length ? 1 : 100);
    for (int i = 0; i < ready; i++) {
        struct reader *r = events[i].data.ptr;
        if (r == &prober || !take(r)) continue;
        last = now();
        if (!first) first = last;
        if (r->status != 200) others++;
        r->left = -2;
        waiting--;
    }
    probe();
}

static void ask(const char *request, long length) {
    first = last = 0;
    others = 0;
    waiting = total;
    for (int i = 0; i < total; i++) {
        readers[i].left = -1;
        readers[i].used = 0;
        send_all(readers[i].fd, request, length);
    }
}

static char *payload(long length) {
    char *data = malloc(length);
    if (!data || fread(data, 1, length, stdin) != (size_t)length) die("standard input");
    return data;
}

int main(int count, char **words) {
    char line[256];
    if (count != 4) return 2;
    int port = atoi(words[1]), each = atoi(words[3]);
    total = atoi(words[2]);
    polling = epoll_create1(0);
    readers = calloc(total, sizeof *readers);
    for (int i = 0; i <= total; i++) {
        struct reader *r = i < total ? &readers[i] : &prober;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = r};
        r->fd = dial(port, INADDR_LOOPBACK + (i < total ? 1 + i / each : 0));
        r->left = -2;
        epoll_ctl(polling, EPOLL_CTL_ADD, r->fd, &event);
    }
    printf("connected\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "ask ", 4)) {
            long length = atol(line + 4);
            char *request = payload(length);
            ask(request, length);
            free(request);
            printf("asked\n");
        } else if (!strncmp(line, "probe ", 6)) {
            probe_length = atoi(line + 6);
            char *request = payload(probe_length);
            if (probe_length > HEAD) return 2;
            memcpy(probe_request, request, probe_length);
            free(request);
            for (int64_t end = now() + 100000000; now() < end || prober.left != -2;) turn();
            printf("probing\n");
        } else if (!strncmp(line, "wait ", 5)) {
            int64_t end = now() + (int64_t)(atof(line + 5) * 1e9);
            stall = probes = 0;
            while (waiting > 0 && now() < end) turn();
            while (probe_length && prober.left != -2 && now() < end) turn(); /* a probe under way may be the longest */
            printf("answered %d %d %lld %lld %lld %lld\n", total - waiting, others, (long long)first, (long long)last,
                   (long long)stall, (long long)probes);
        } else {
            return 2;
        }
        fflush(stdout);
    }
    return 0;
}
