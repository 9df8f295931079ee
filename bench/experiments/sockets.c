/*
 * What it costs to hand frames to many sockets, by the way in which they are handed over: the price list behind
 * docs/experiments.md. One process writes to 1,000 TCP connections over loopback, another one reads and throws away.
 * Printed is CPU time of the writing thread, in seconds per million frames (= microseconds per frame), the median of five turns in
 * which the ways alternate.
 *
 *   cc -O2 -o sockets sockets.c -luring && ./sockets
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <liburing.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOCKETS = 1000, TURNS = 5, MOST_FRAMES = 64, LARGEST = 256 * 1024 };

enum way { SEND, WRITEV, URING, URING_SQPOLL, ZEROCOPY, URING_ZEROCOPY, WAYS };
static const char *const names[WAYS] = {
    "send of joined frames", "writev of frames", "io_uring, one enter a round", "io_uring, SQPOLL", "MSG_ZEROCOPY",
    "io_uring, send_zc",
};

static int sockets[SOCKETS];
static char frames[MOST_FRAMES][LARGEST];
static char joined[MOST_FRAMES * 4096 > LARGEST ? MOST_FRAMES * 4096 : LARGEST];
static struct io_uring ring, polling;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void take(int result, const char *what) {
    if (result < 0) fail(what);
}

/* Reads from every socket until the other side is gone. */
static void read_all(int listener) {
    static char buffer[1 << 20];
    int epoll = epoll_create1(0);
    take(epoll, "epoll_create1");
    for (int i = 0; i < SOCKETS; i++) {
        int socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        take(socket, "accept4");
        struct epoll_event event = {.events = EPOLLIN, .data.fd = socket};
        take(epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event), "epoll_ctl");
    }
    for (;;) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++)
            if (read(events[i].data.fd, buffer, sizeof buffer) == 0) _exit(0);
    }
}

/* Waits until a socket has been read by the other side, so that no way is charged for full buffers. */
static void drained(int socket) {
    for (int left = 1; left > 0;) {
        /* Bytes that are not acknowledged; over loopback that is what the other side's buffer had no room for. */
        take(ioctl(socket, SIOCOUTQ, &left), "SIOCOUTQ");
        if (left > 0) usleep(200);
    }
}

static void whole(ssize_t sent, size_t size) {
    if (sent < 0) fail("a send");
    if ((size_t)sent != size) {
        fprintf(stderr, "a socket took %zd of %zu bytes: its buffer is too small for this measurement\n", sent, size);
        exit(1);
    }
}

/* Takes the notices that the kernel is done with the buffers, as a server must before it may use them again. */
static void take_notices(int socket, unsigned wanted) {
    for (unsigned seen = 0; seen < wanted;) {
        char control[128];
        struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(socket, &message, MSG_ERRQUEUE) < 0) {
            if (errno != EAGAIN) fail("recvmsg");
            struct pollfd wait = {.fd = socket};
            poll(&wait, 1, 100);
            continue;
        }
        struct sock_extended_err *notice = (void *)CMSG_DATA(CMSG_FIRSTHDR(&message));
        seen += notice->ee_data - notice->ee_info + 1;
    }
}

static void ring_round(struct io_uring *ring, size_t size, int zerocopy) {
    for (int i = 0; i < SOCKETS; i++) {
        struct io_uring_sqe *entry = io_uring_get_sqe(ring);
        while (entry == NULL) {
            take(io_uring_submit(ring), "io_uring_submit");
            entry = io_uring_get_sqe(ring);
        }
        if (zerocopy)
            io_uring_prep_send_zc(entry, sockets[i], joined, size, 0, 0);
        else
            io_uring_prep_send(entry, sockets[i], joined, size, 0);
    }
    take(io_uring_submit_and_wait(ring, SOCKETS), "io_uring_submit_and_wait");
    for (int left = SOCKETS * (zerocopy ? 2 : 1); left > 0; left--) {
        struct io_uring_cqe *done;
        take(io_uring_wait_cqe(ring, &done), "io_uring_wait_cqe");
        if (!(done->flags & IORING_CQE_F_NOTIF)) whole(done->res < 0 ? (errno = -done->res, -1) : done->res, size);
        io_uring_cqe_seen(ring, done);
    }
}

/* Hands so many frames of that size to each socket, and tells the CPU seconds that it took. */
static double round_of(enum way way, int count, size_t size) {
    size_t together = count * size;
    struct iovec parts[MOST_FRAMES];
    for (int i = 0; i < count; i++) parts[i] = (struct iovec){frames[i], size};
    struct rusage before, after;
    /* With SQPOLL a thread of the kernel works for this process, and counts as its. */
    int whose = way == URING_SQPOLL ? RUSAGE_SELF : RUSAGE_THREAD;
    getrusage(whose, &before);
    switch (way) {
    case SEND:
        /* Joined once for all sockets. */
        for (int i = 0; i < count; i++) memcpy(joined + i * size, frames[i], size);
        for (int i = 0; i < SOCKETS; i++) whole(send(sockets[i], joined, together, 0), together);
        break;
    case WRITEV:
        for (int i = 0; i < SOCKETS; i++) whole(writev(sockets[i], parts, count), together);
        break;
    case URING: ring_round(&ring, together, 0); break;
    case URING_SQPOLL: ring_round(&polling, together, 0); break;
    case ZEROCOPY:
        for (int i = 0; i < SOCKETS; i++) whole(send(sockets[i], joined, together, MSG_ZEROCOPY), together);
        for (int i = 0; i < SOCKETS; i++) take_notices(sockets[i], 1);
        break;
    case URING_ZEROCOPY: ring_round(&ring, together, 1); break;
    case WAYS: break;
    }
    getrusage(whose, &after);
    for (int i = 0; i < SOCKETS; i++) drained(sockets[i]);
    double seconds = after.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_utime.tv_sec - before.ru_stime.tv_sec;
    return seconds + (after.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_utime.tv_usec - before.ru_stime.tv_usec) / 1e6;
}

static int by_size(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static void compare(int count, size_t size, const enum way *ways, int how_many) {
    double turns[WAYS][TURNS];
    int rounds = size * count > 8192 ? 5 : 40;
    for (int turn = 0; turn < TURNS; turn++)
        for (int w = 0; w < how_many; w++) {
            double sum = 0;
            round_of(ways[w], count, size); /* warm */
            for (int i = 0; i < rounds; i++) sum += round_of(ways[w], count, size);
            turns[w][turn] = sum / rounds / SOCKETS / count * 1e6;
        }
    double first = 0;
    for (int w = 0; w < how_many; w++) {
        qsort(turns[w], TURNS, sizeof(double), by_size);
        double median = turns[w][TURNS / 2];
        if (w == 0) first = median;
        printf("%8zu B  %3d a call  %-28s %8.3f  x %.2f\n", size, count, names[ways[w]], median, median / first);
    }
    fflush(stdout);
}

int main(void) {
    struct rlimit files = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, buffer = 4 << 20;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    take(listener, "socket");
    take(bind(listener, (void *)&address, sizeof address), "bind");
    take(getsockname(listener, (void *)&address, &length), "getsockname");
    take(listen(listener, SOCKETS), "listen");
    pid_t reader = fork();
    take(reader, "fork");
    if (reader == 0) read_all(listener);
    for (int i = 0; i < SOCKETS; i++) {
        take(sockets[i] = socket(AF_INET, SOCK_STREAM, 0), "socket");
        take(connect(sockets[i], (void *)&address, sizeof address), "connect");
        setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(sockets[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        take(setsockopt(sockets[i], SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one), "SO_ZEROCOPY");
    }
    take(io_uring_queue_init(4096, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN), "io_uring_queue_init");
    take(io_uring_queue_init(4096, &polling, IORING_SETUP_SQPOLL), "io_uring_queue_init with SQPOLL");
    printf("CPU seconds per million frames, and over the first way\n");
    const enum way small[] = {SEND, WRITEV, URING, URING_SQPOLL};
    for (int count = 1; count <= 64; count *= 4) compare(count, 130, small, 4);
    const enum way large[] = {SEND, ZEROCOPY, URING, URING_ZEROCOPY};
    for (size_t size = 4096; size <= LARGEST; size *= 4) compare(1, size, large, 4);
    kill(reader, SIGTERM);
    waitpid(reader, NULL, 0);
}
