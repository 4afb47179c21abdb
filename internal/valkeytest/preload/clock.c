// A wall clock that a test holds and moves, preloaded into valkey-server.
//
// The time is an int64 of nanoseconds since 1970 in the file that the variable
// VALKEYTEST_CLOCK names. Without a file, and while the value is 0, the time is
// the real one. The monotonic clocks are always real, so that timers go on.
//
// Every call goes to the kernel directly: the allocator of the server asks for
// the time before the loader could resolve a symbol, so nothing here may.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t second = 1000000000;
static const int64_t *clock_value;

__attribute__((constructor)) static void clock_open(void) {
	const char *path = getenv("VALKEYTEST_CLOCK");
	if (path == NULL) return;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return;
	void *p = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED) clock_value = p;
}

static int64_t clock_held(void) {
	return clock_value == NULL ? 0 : __atomic_load_n(clock_value, __ATOMIC_SEQ_CST);
}

int clock_gettime(clockid_t id, struct timespec *ts) {
	int64_t ns = 0;
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) ns = clock_held();
	if (ns == 0) return syscall(SYS_clock_gettime, id, ts);
	ts->tv_sec = ns / second;
	ts->tv_nsec = ns % second;
	return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
	struct timespec ts;
	(void)tz;
	if (tv == NULL) return 0;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out) {
	struct timespec ts;
	if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return (time_t)-1;
	if (out != NULL) *out = ts.tv_sec;
	return ts.tv_sec;
}
