/* System calls that fail on demand, for files in one directory. Loaded into a process with LD_PRELOAD. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kinds of calls, in the order of CALLS in failing_calls.py. */
enum kind { OPEN, OPENDIR, READ, WRITE, SYNC, CLOSE, STAT, TRUNCATE, UNLINK, RENAME, LOCK, FLOCK, CHMOD, CHOWN, MKDIR, MMAP, KINDS };

static char directory[4096];
static int chosen, error, is_lasting;
static long nth, seen[KINDS];
static char is_ours[65536]; /* by descriptor: whether its file is in the directory */

/* Let the n-th call of a kind fail, or all calls of this kind from the n-th on. */
void fail_calls(const char *in, int kind, long number, int with, int lasting)
{
    snprintf(directory, sizeof directory, "%s", in);
    memset(seen, 0, sizeof seen);
    chosen = kind, nth = number, error = with, is_lasting = lasting;
}

/* Let no call fail from now on. */
void stop_failing(void)
{
    directory[0] = '\0';
}

long count_calls(int kind)
{
    return seen[kind];
}

static int is_inside(const char *path)
{
    size_t length = strlen(directory);
    return length && !strncmp(path, directory, length) && (path[length] == '/' || path[length] == '\0');
}

static int has_our_file(int descriptor)
{
    return descriptor >= 0 && descriptor < (int)sizeof is_ours && is_ours[descriptor];
}

static int note(int descriptor, int inside)
{
    if (descriptor >= 0 && descriptor < (int)sizeof is_ours)
        is_ours[descriptor] = inside;
    return descriptor;
}

static int fails(enum kind kind, int inside)
{
    if (!inside || !directory[0])
        return 0;
    long number = ++seen[kind];
    if (kind != (enum kind)chosen || number < nth || (number > nth && !is_lasting))
        return 0;
    errno = error;
    return 1;
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) \
        next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define CALL(kind, type, name, parameters, arguments, inside) \
    type name parameters \
    { \
        NEXT(name); \
        return fails(kind, inside) ? (type)-1 : next arguments; \
    }

#define ON_PATH(kind, name, parameters, arguments) CALL(kind, int, name, parameters, arguments, is_inside(path))
#define ON_FILE(kind, type, name, parameters, arguments) CALL(kind, type, name, parameters, arguments, has_our_file(file))

#define OPEN(name, parameters, arguments) \
    int name parameters \
    { \
        va_list others; \
        NEXT(name); \
        va_start(others, flags); \
        mode_t mode = va_arg(others, mode_t); \
        va_end(others); \
        return fails(OPEN, is_inside(path)) ? -1 : note(next arguments, is_inside(path)); \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

DIR *opendir(const char *path)
{
    NEXT(opendir);
    return fails(OPENDIR, is_inside(path)) ? NULL : next(path);
}

/* As on Linux, the descriptor is closed even if the call fails. */
int close(int file)
{
    NEXT(close);
    int inside = has_our_file(file);
    int result = next(note(file, 0));
    return fails(CLOSE, inside) ? -1 : result;
}

/* Only taking a lock fails. */
#define FCNTL(name) \
    int name(int file, int command, ...) \
    { \
        va_list others; \
        NEXT(name); \
        va_start(others, command); \
        void *argument = va_arg(others, void *); \
        va_end(others); \
        int locks = (command == F_SETLK || command == F_SETLKW) && ((struct flock *)argument)->l_type != F_UNLCK; \
        return fails(LOCK, locks && has_our_file(file)) ? -1 : next(file, command, argument); \
    }

FCNTL(fcntl)
FCNTL(fcntl64)

ON_FILE(FLOCK, int, flock, (int file, int operation), (file, operation))
ON_FILE(READ, ssize_t, read, (int file, void *buffer, size_t size), (file, buffer, size))
ON_FILE(READ, ssize_t, pread, (int file, void *buffer, size_t size, off_t at), (file, buffer, size, at))
ON_FILE(READ, ssize_t, pread64, (int file, void *buffer, size_t size, off64_t at), (file, buffer, size, at))
ON_FILE(WRITE, ssize_t, write, (int file, const void *buffer, size_t size), (file, buffer, size))
ON_FILE(WRITE, ssize_t, pwrite, (int file, const void *buffer, size_t size, off_t at), (file, buffer, size, at))
ON_FILE(WRITE, ssize_t, pwrite64, (int file, const void *buffer, size_t size, off64_t at), (file, buffer, size, at))
ON_FILE(WRITE, ssize_t, sendfile, (int file, int from, off_t *at, size_t size), (file, from, at, size))
ON_FILE(WRITE, ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), (file, from, at, size))
ON_FILE(TRUNCATE, int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(TRUNCATE, int, ftruncate64, (int file, off64_t size), (file, size))
ON_FILE(SYNC, int, fsync, (int file), (file))
ON_FILE(SYNC, int, fdatasync, (int file), (file))
ON_FILE(CHMOD, int, fchmod, (int file, mode_t mode), (file, mode))
ON_FILE(CHOWN, int, fchown, (int file, uid_t user, gid_t group), (file, user, group))
ON_PATH(CHMOD, chmod, (const char *path, mode_t mode), (path, mode))
ON_PATH(CHOWN, chown, (const char *path, uid_t user, gid_t group), (path, user, group))
ON_PATH(UNLINK, unlink, (const char *path), (path))
ON_PATH(RENAME, rename, (const char *path, const char *to), (path, to))
ON_PATH(MKDIR, mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(STAT, access, (const char *path, int mode), (path, mode))
ON_PATH(STAT, faccessat, (int at, const char *path, int mode, int flags), (at, path, mode, flags))
ON_PATH(STAT, stat, (const char *path, struct stat *found), (path, found))
ON_PATH(STAT, stat64, (const char *path, struct stat64 *found), (path, found))
ON_PATH(STAT, lstat, (const char *path, struct stat *found), (path, found))
ON_PATH(STAT, lstat64, (const char *path, struct stat64 *found), (path, found))
ON_PATH(STAT, fstatat, (int at, const char *path, struct stat *found, int flags), (at, path, found, flags))
ON_PATH(STAT, fstatat64, (int at, const char *path, struct stat64 *found, int flags), (at, path, found, flags))
ON_FILE(STAT, int, fstat, (int file, struct stat *found), (file, found))
ON_FILE(STAT, int, fstat64, (int file, struct stat64 *found), (file, found))
CALL(MMAP, void *, mmap, (void *at, size_t size, int access, int flags, int file, off_t from),
     (at, size, access, flags, file, from), has_our_file(file))
CALL(MMAP, void *, mmap64, (void *at, size_t size, int access, int flags, int file, off64_t from),
     (at, size, access, flags, file, from), has_our_file(file))
