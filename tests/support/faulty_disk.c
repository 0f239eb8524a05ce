/* A preload library that lets file operations fail, or the process die, at a chosen moment.
 *
 * It counts the operations that change what lies below one folder. At the chosen one it kills or
 * signals the process, or lets the operation fail; or it writes them all down, and keeps what
 * each fsync made durable. Nothing happens before fault_arm is called.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { WATCH, KILL_BEFORE, KILL_AFTER, KILL_HALF, FAIL, FAIL_HALF, SIGNAL };
enum kind { NAMES, ALLOCATES };

static struct {
    int armed, action, value, sticky, trace;
    long at, again; /* numbers of operations, counted from 1 */
    volatile long *count;
    char root[PATH_MAX], snapshots[PATH_MAX];
} fault;

/* value: an errno or a signal. again: where the signal comes a second time, or 0.
 * trace, snapshots: a file and a folder outside of root, or empty. */
void fault_arm(const char *root, int action, long at, long again, int value, int sticky,
               volatile long *count, const char *trace, const char *snapshots)
{
    snprintf(fault.root, sizeof fault.root, "%s", root);
    snprintf(fault.snapshots, sizeof fault.snapshots, "%s", snapshots);
    fault.action = action;
    fault.at = at;
    fault.again = again;
    fault.value = value;
    fault.sticky = sticky;
    fault.count = count;
    fault.trace = *trace ? (int)syscall(SYS_openat, AT_FDCWD, trace,
                                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    fault.armed = 1;
}

static int below_root(const char *path)
{
    size_t length = strlen(fault.root);
    return !strncmp(path, fault.root, length) && (path[length] == '/' || !path[length]);
}

static int name_of(int fd, char *name)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, PATH_MAX - 1);
    name[length < 0 ? 0 : length] = 0;
    return length >= 0;
}

static void absolute(int folder, const char *path, char *name)
{
    char base[PATH_MAX] = "";
    if (*path == '/')
        snprintf(name, PATH_MAX, "%s", path);
    else {
        if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !name_of(folder, base))
            base[0] = 0;
        snprintf(name, PATH_MAX, "%.2000s/%.2000s", base, path);
    }
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

struct step {
    long number;
    int fails, halved;
};

/* Count an operation; say whether it is to fail, or to be done by half. */
static struct step begin(enum kind kind, int is_write)
{
    struct step step = {__atomic_add_fetch(fault.count, 1, __ATOMIC_SEQ_CST), 0, 0};
    int now = step.number == fault.at;
    int since = fault.sticky ? step.number >= fault.at : now;
    if (now && (fault.action == KILL_BEFORE || (fault.action == KILL_HALF && !is_write)))
        die();
    if (fault.action == SIGNAL && (now || step.number == fault.again))
        syscall(SYS_kill, getpid(), fault.value);
    step.halved = now && is_write && (fault.action == KILL_HALF || fault.action == FAIL_HALF);
    if (fault.action == FAIL_HALF && is_write) /* a short count first, then the error */
        since = fault.sticky ? step.number > fault.at : step.number == fault.at + 1;
    if ((fault.action == FAIL || fault.action == FAIL_HALF) && since)
        step.fails = fault.value != ENOSPC || kind == ALLOCATES;
    return step;
}

static void keep(long number, int fd)
{
    char link[64], name[PATH_MAX], block[65536];
    struct stat status;
    if (!*fault.snapshots || fstat(fd, &status) || !S_ISREG(status.st_mode))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    snprintf(name, sizeof name, "%.4000s/%ld", fault.snapshots, number);
    int from = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    int to = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    ssize_t got;
    while ((got = read(from, block, sizeof block)) > 0)
        if (syscall(SYS_write, to, block, got) != got)
            break;
    close(from);
    close(to);
}

/* After the operation: write it down, or die. Fields are separated by tabs. */
static void end(struct step step, const char *operation, long result, const char *name,
                const char *other, int fd, long offset, long length)
{
    int error = errno;
    if (fault.trace >= 0) {
        char line[3 * PATH_MAX];
        struct stat status = {0};
        if (fd < 0 || fstat(fd, &status))
            lstat(*other ? other : name, &status);
        int size = snprintf(line, sizeof line, "%ld\t%s\t%ld\t%lu\t%ld\t%ld\t%s\t%s\n",
                            step.number, operation, result, (unsigned long)status.st_ino, offset,
                            length, name, other);
        if (syscall(SYS_write, fault.trace, line, size) != size)
            die();
        if (result >= 0 && strstr(operation, "sync"))
            keep(step.number, fd);
    }
    if (step.number == fault.at && (fault.action == KILL_AFTER || step.halved)
        && fault.action != FAIL_HALF)
        die();
    errno = error;
}

static long refuse(struct step step, const char *operation, const char *name)
{
    errno = fault.value;
    end(step, operation, -fault.value, name, "", -1, 0, 0);
    errno = fault.value;
    return -1;
}

/* Names: open, rename, link, unlink, mkdir, rmdir. */

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    char name[PATH_MAX];
    if (!fault.armed || !(flags & (O_CREAT | O_TRUNC)))
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    absolute(folder, path, name);
    if (!below_root(name))
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    struct step step = begin(ALLOCATES, 0);
    if (step.fails)
        return (int)refuse(step, "open", name);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    end(step, "open", fd, name, "", fd, flags & O_TRUNC ? 1 : 0, 0);
    return fd;
}

#define MODE(last, flags)                          \
    mode_t mode = 0;                               \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {       \
        va_list arguments;                         \
        va_start(arguments, last);                 \
        mode = va_arg(arguments, mode_t);          \
        va_end(arguments);                         \
    }
int open(const char *path, int flags, ...) { MODE(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags, flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags, flags) return open_at(folder, path, flags, mode); }
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static int two_names(const char *operation, enum kind kind, long call, int from_folder,
                     const char *from, int to_folder, const char *to, int flags)
{
    char source[PATH_MAX], target[PATH_MAX];
    if (!fault.armed)
        return (int)syscall(call, from_folder, from, to_folder, to, flags);
    absolute(from_folder, from, source);
    absolute(to_folder, to, target);
    if (!below_root(source) && !below_root(target))
        return (int)syscall(call, from_folder, from, to_folder, to, flags);
    struct step step = begin(kind, 0);
    if (step.fails)
        return (int)refuse(step, operation, source);
    int result = (int)syscall(call, from_folder, from, to_folder, to, flags);
    end(step, operation, result, source, target, -1, 0, 0);
    return result;
}

int rename(const char *from, const char *to) { return two_names("rename", NAMES, SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return two_names("rename", NAMES, SYS_renameat2, a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return two_names("rename", NAMES, SYS_renameat2, a, from, b, to, (int)flags); }
int link(const char *from, const char *to) { return two_names("link", ALLOCATES, SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return two_names("link", ALLOCATES, SYS_linkat, a, from, b, to, flags); }

static int one_name(const char *operation, enum kind kind, long call, int folder, const char *path,
                    long argument)
{
    char name[PATH_MAX];
    if (!fault.armed)
        return (int)syscall(call, folder, path, argument);
    absolute(folder, path, name);
    if (!below_root(name))
        return (int)syscall(call, folder, path, argument);
    struct step step = begin(kind, 0);
    if (step.fails)
        return (int)refuse(step, operation, name);
    int result = (int)syscall(call, folder, path, argument);
    end(step, operation, result, name, "", -1, 0, 0);
    return result;
}

int unlink(const char *path) { return one_name("unlink", NAMES, SYS_unlinkat, AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return one_name(flags & AT_REMOVEDIR ? "rmdir" : "unlink", NAMES, SYS_unlinkat, folder, path, flags); }
int rmdir(const char *path) { return one_name("rmdir", NAMES, SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); }
int mkdir(const char *path, mode_t mode) { return one_name("mkdir", ALLOCATES, SYS_mkdirat, AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return one_name("mkdir", ALLOCATES, SYS_mkdirat, folder, path, mode); }

/* Contents: write, ftruncate, fsync. */

static int watched(int fd, char *name)
{
    return fault.armed && name_of(fd, name) && below_root(name);
}

/* offset -1: at the file's position. */
static ssize_t write_at(int fd, const void *data, size_t size, off64_t offset)
{
    char name[PATH_MAX];
    struct step step = {0, 0, 0};
    int counted = watched(fd, name);
    if (counted)
        step = begin(ALLOCATES, 1);
    if (step.fails)
        return refuse(step, "write", name);
    size_t part = step.halved && size > 1 ? size / 2 : size;
    off64_t place = counted && offset < 0 ? lseek64(fd, 0, SEEK_CUR) : offset;
    ssize_t done = offset < 0 ? syscall(SYS_write, fd, data, part)
                              : syscall(SYS_pwrite64, fd, data, part, offset);
    if (counted)
        end(step, "write", done, name, "", fd, place, (long)size);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return write_at(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return write_at(fd, data, size, offset); }

/* As POSIX allows, only the first buffer is written: the caller goes on with the rest. */
static ssize_t write_first(int fd, const struct iovec *parts, int count, off64_t offset)
{
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len)
            return write_at(fd, parts[i].iov_base, parts[i].iov_len, offset);
    return 0;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    char name[PATH_MAX];
    return watched(fd, name) ? write_first(fd, parts, count, -1) : syscall(SYS_writev, fd, parts, count);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return write_first(fd, parts, count, offset); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) { return write_first(fd, parts, count, offset); }

static int on_file(const char *operation, enum kind kind, long call, int fd, long argument)
{
    char name[PATH_MAX];
    if (!watched(fd, name))
        return (int)syscall(call, fd, argument);
    struct step step = begin(kind, 0);
    if (step.fails)
        return (int)refuse(step, operation, name);
    int result = (int)syscall(call, fd, argument);
    end(step, operation, result, name, "", fd, 0, argument);
    return result;
}

int fsync(int fd) { return on_file("fsync", NAMES, SYS_fsync, fd, 0); }
int fdatasync(int fd) { return on_file("fdatasync", NAMES, SYS_fdatasync, fd, 0); }
int ftruncate(int fd, off_t size) { return on_file("truncate", ALLOCATES, SYS_ftruncate, fd, size); }
int ftruncate64(int fd, off64_t size) { return on_file("truncate", ALLOCATES, SYS_ftruncate, fd, size); }
