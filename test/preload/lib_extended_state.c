// A library for gdb itself. gdb 13 writes that part of a thread's extended state which it knows;
// where the processor has more (AMX), Linux refuses a part, and gdb can call no function, in any
// program. Here the kernel gets the rest as it was.
#include <dlfcn.h>
#include <elf.h>
#include <linux/ptrace.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*Ptrace)(int request, ...);

long ptrace(int request, ...) {
  static char state[1 << 16];
  va_list args;
  va_start(args, request);
  const pid_t pid = va_arg(args, pid_t);
  void* const address = va_arg(args, void*);
  void* data = va_arg(args, void*);
  va_end(args);

  const Ptrace next = (Ptrace)dlsym(RTLD_NEXT, "ptrace");
  struct iovec whole = {state, sizeof state};
  if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE &&
      next(PTRACE_GETREGSET, pid, address, &whole) == 0) {
    const struct iovec* const part = data;
    if (part->iov_len < whole.iov_len) {
      memcpy(state, part->iov_base, part->iov_len);
      data = &whole;
    }
  }
  return next(request, pid, address, data);
}
