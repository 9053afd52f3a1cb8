/* Preloaded into a process, this makes every flush of a file last FLUSH_US microseconds instead of what the disk takes,
 * and counts it in the first eight bytes of the file FLUSH_COUNT. Without FLUSH_US the disk is flushed as usual. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic long *count;
static long pause_us = -1;

__attribute__((constructor)) static void prepare(void) {
    const char *path = getenv("FLUSH_COUNT"), *pause = getenv("FLUSH_US");
    if (pause && *pause) pause_us = atol(pause);
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) count = page;
    close(file);
}

static int flushed(int file, const char *name) {
    if (count) atomic_fetch_add(count, 1);
    if (pause_us < 0) return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
    struct timespec rest = {pause_us / 1000000, pause_us % 1000000 * 1000};
    if (pause_us) nanosleep(&rest, NULL);
    return 0;
}

int fsync(int file) { return flushed(file, "fsync"); }
int fdatasync(int file) { return flushed(file, "fdatasync"); }
