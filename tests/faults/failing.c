/* Preloaded: the n-th call that changes a file below a folder fails, or ends the process as kill -9 does.
 * Armed from Python by ctypes; until then every call goes straight through. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static int left = -1, met = 0;
static int error = 0; /* 0: SIGKILL */
static int lasting = 0;

void fault_arm(const char *below, int countdown, int number, int stays) {
    snprintf(folder, sizeof folder, "%s", below);
    left = countdown; error = number; lasting = stays; met = 0;
}
int fault_met(void) { return met; }

/* 1 where this call must fail with errno set; does not return where it must end the process. */
static int strikes(const char *path) {
    if (!folder[0] || !path || strncmp(path, folder, strlen(folder))) return 0;
    met++;
    if (left < 0) return 0;
    if (left > 0) { left--; return 0; }
    if (!lasting) left = -1;
    if (!error) { kill(getpid(), SIGKILL); for (;;) pause(); }
    errno = error;
    return 1;
}
static int strikes_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strikes(path);
}
static int strikes_at(int dir, const char *path) {
    char whole[2 * PATH_MAX], link[64], base[PATH_MAX];
    if (!folder[0] || !path) return 0;
    if (path[0] == '/' || dir == AT_FDCWD) return strikes(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = readlink(link, base, sizeof base - 1);
    if (n < 0) return 0;
    base[n] = 0;
    snprintf(whole, sizeof whole, "%s/%s", base, path);
    return strikes(whole);
}
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        if ((flags & O_CREAT) && strikes(path)) return -1; \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        if ((flags & O_CREAT) && strikes_at(dir, path)) return -1; \
        return real(dir, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)
ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return strikes_fd(fd) ? -1 : real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return strikes_fd(fd) ? -1 : real(fd, parts, count);
}
#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t size, offset_type at) { \
        REAL(ssize_t, #name, int, const void *, size_t, offset_type); \
        return strikes_fd(fd) ? -1 : real(fd, data, size, at); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
#define TRUNCATE(name, offset_type) \
    int name(int fd, offset_type size) { \
        REAL(int, #name, int, offset_type); \
        return strikes_fd(fd) ? -1 : real(fd, size); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
int fsync(int fd) { REAL(int, "fsync", int); return strikes_fd(fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); return strikes_fd(fd) ? -1 : real(fd); }
int mkdir(const char *path, mode_t mode) { REAL(int, "mkdir", const char *, mode_t); return strikes(path) ? -1 : real(path, mode); }
int rmdir(const char *path) { REAL(int, "rmdir", const char *); return strikes(path) ? -1 : real(path); }
int unlink(const char *path) { REAL(int, "unlink", const char *); return strikes(path) ? -1 : real(path); }
int unlinkat(int dir, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    return strikes_at(dir, path) ? -1 : real(dir, path, flags);
}
int rename(const char *from, const char *to) { REAL(int, "rename", const char *, const char *); return strikes(to) ? -1 : real(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    return strikes_at(b, to) ? -1 : real(a, from, b, to);
}
