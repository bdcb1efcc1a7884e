// SPDX-License-Identifier: MIT
/*
 * The shortest whole application in C: opens a buffer, maps it, writes a greeting, reads it back and puts back what was there.
 *
 *     hello-c [DEVICE]        a path; /dev/mydrv0 if not given
 */

#define _FILE_OFFSET_BITS 64 /* offsets beyond 2 GiB on 32-bit machines */
#define _DEFAULT_SOURCE      /* flock */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mydrv.h>

static const char greeting[] = "hello from C";

static int fail(const char *path, const char *what)
{
	fprintf(stderr, "hello: %s: %s: %s\n", path, what, strerror(errno));
	return EXIT_FAILURE;
}

/* Hands the first bytes of a cached buffer over; on other buffers the driver has nothing to do. */
static int sync_greeting(int fd, uint32_t direction)
{
	const struct mydrv_sync range = { .offset = 0, .length = sizeof(greeting), .direction = direction };

	return ioctl(fd, MYDRV_IOC_SYNC, &range);
}

/*
 * The buffer may change at any time, by a device or by another process: each byte is read and written exactly once, as `volatile`
 * makes sure. memcpy() promises nothing of the kind, and may use accesses that uncached memory does not take.
 */
static void copy_in(volatile char *buffer, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		buffer[i] = bytes[i];
}

static void copy_out(const volatile char *buffer, char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = buffer[i];
}

static int hello(int fd, const char *path)
{
	char before[sizeof(greeting)], after[sizeof(greeting)];
	struct mydrv_info info;
	volatile char *buffer;
	void *mapping;
	size_t size;
	int status;

	/* Beside other users, but not beside one that wants the device alone, such as mydrvctl validate. */
	if (flock(fd, LOCK_SH | LOCK_NB) < 0)
		return fail(path, errno == EWOULDBLOCK ? "in use by another program" : "flock");

	if (ioctl(fd, MYDRV_IOC_INFO, &info) < 0)
		return fail(path, errno == ENOTTY ? "not a mydrv device" : "MYDRV_IOC_INFO");
	if (info.abi_version < MYDRV_ABI_VERSION) {
		fprintf(stderr, "hello: %s: the driver speaks ABI %" PRIu32 ", this program needs %d: update the module\n", path,
			info.abi_version, MYDRV_ABI_VERSION);
		return EXIT_FAILURE;
	}
	if (info.size_bytes > SIZE_MAX) {
		fprintf(stderr, "hello: %s: too large for a 32-bit program: map a part\n", path);
		return EXIT_FAILURE;
	}
	size = (size_t)info.size_bytes;
	printf("%s: %zu bytes, label \"%.*s\"\n", path, size, (int)sizeof(info.label), info.label);

	/* Always MAP_SHARED: the driver refuses private copies of a device's memory. */
	mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapping == MAP_FAILED)
		return fail(path, "mmap");
	buffer = mapping;

	copy_out(buffer, before, sizeof(before));
	copy_in(buffer, greeting, sizeof(greeting));
	/*
	 * TO_DEVICE: now a device may read it, or write there; either way no cache line may be left that memory does not have. FROM_DEVICE: what a
	 * device has written may be read, or parts of it written over.
	 */
	if (sync_greeting(fd, MYDRV_SYNC_TO_DEVICE) < 0 || sync_greeting(fd, MYDRV_SYNC_FROM_DEVICE) < 0) {
		status = fail(path, "MYDRV_IOC_SYNC");
		goto unmap;
	}
	copy_out(buffer, after, sizeof(after));
	if (memcmp(after, greeting, sizeof(greeting)) != 0) {
		fprintf(stderr, "hello: %s: the buffer holds something else than was written\n", path);
		status = EXIT_FAILURE;
		goto unmap;
	}
	printf("%s\n", after);
	copy_in(buffer, before, sizeof(before));
	/* Else what was put back may stay in the cache, and come out of it when a device has written there. */
	status = sync_greeting(fd, MYDRV_SYNC_TO_DEVICE) < 0 ? fail(path, "MYDRV_IOC_SYNC") : EXIT_SUCCESS;

unmap:
	if (munmap(mapping, size) < 0)
		status = fail(path, "munmap");
	return status;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/dev/mydrv0";
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int status;

	if (fd < 0) {
		if (errno == EACCES)
			fprintf(stderr, "hello: the group mydrv may use the device: usermod -aG mydrv USER\n");
		return fail(path, "open");
	}
	status = hello(fd, path);
	if (close(fd) < 0)
		status = fail(path, "close");
	return status;
}
