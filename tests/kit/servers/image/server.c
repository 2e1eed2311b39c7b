/*
 * The program of the test image: a TCP server without dependencies, linked statically.
 *
 *   server [PORT]   listens on PORT (or the environment's PORT, or 8080); each connection gets one small HTTP answer
 *   server check    exits 0 when the server of this container answers and is not marked unhealthy, else 1 (HEALTHCHECK)
 *
 * Environment: BANNER (text of the answer), STOP_DELAY (seconds between SIGTERM and the end), START_DELAY (seconds
 * before it listens), EXIT_AFTER (seconds until it ends with status 1), UNHEALTHY_FILE (a path; while it exists
 * `check` fails). A request for /sick makes that file, /well removes it.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked_to_stop;

static void on_term(int number) {
    (void)number;
    asked_to_stop = 1;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const char *text(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int check(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct timeval limit = {.tv_sec = 2};
    char byte;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (access(text("UNHEALTHY_FILE", "/unhealthy"), F_OK) == 0) return 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(s, (struct sockaddr *)&address, sizeof address) != 0) return 1;
    if (write(s, "GET / HTTP/1.0\r\n\r\n", 18) != 18) return 1;
    return read(s, &byte, 1) == 1 ? 0 : 1;
}

static void answer(int client) {
    const char *banner = text("BANNER", "ok");
    const char *mark = text("UNHEALTHY_FILE", "/unhealthy");
    char request[1024], response[2048];
    struct timeval limit = {.tv_sec = 1};
    ssize_t n;
    int length;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    n = read(client, request, sizeof request - 1);
    request[n > 0 ? n : 0] = 0;
    if (strstr(request, " /sick")) close(open(mark, O_CREAT | O_WRONLY, 0600));
    if (strstr(request, " /well")) unlink(mark);
    length = snprintf(response, sizeof response,
                      "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%.1500s",
                      strlen(banner), banner);
    if (write(client, response, (size_t)length) < 0) perror("write");
    close(client);
}

int main(int argc, char **argv) {
    int is_check = argc > 1 && strcmp(argv[1], "check") == 0;
    int port = atoi(argc > 1 && !is_check ? argv[1] : text("PORT", "8080"));
    double stop_delay = atof(text("STOP_DELAY", "0")), exit_after = atof(text("EXIT_AFTER", "0"));
    double began = now(), stop_at = 0;
    struct sigaction action = {.sa_handler = on_term};
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
    struct sockaddr_in address4 = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct pollfd waiting = {.events = POLLIN};
    int on = 1, bound;
    if (is_check) return check(port);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    while (now() - began < atof(text("START_DELAY", "0")) && !asked_to_stop) usleep(20000);
    waiting.fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (waiting.fd >= 0) {
        setsockopt(waiting.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        bound = bind(waiting.fd, (struct sockaddr *)&address, sizeof address);
    } else { /* no IPv6 here */
        waiting.fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(waiting.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        bound = bind(waiting.fd, (struct sockaddr *)&address4, sizeof address4);
    }
    if (bound != 0 || listen(waiting.fd, 128) != 0) {
        perror("listen");
        return 1;
    }
    for (;;) {
        if (asked_to_stop && stop_at == 0) stop_at = now() + stop_delay;
        if (stop_at != 0 && now() >= stop_at) return 0;
        if (exit_after > 0 && now() - began >= exit_after) return 1;
        if (poll(&waiting, 1, 50) > 0) {
            int client = accept(waiting.fd, NULL, NULL);
            if (client >= 0) answer(client);
        }
    }
}
