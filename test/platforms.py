"""Which tests say nothing on another platform than this machine's, and why."""
import re

HOST_PROGRAMS = "the programs that it starts are this machine's"
NO_PREINIT = "musl runs no .preinit_array"
NO_IFUNC = "musl has no IFUNC"

# Patterns of the whole names of tests. Those that need a limit on address space, the resident set
# or seccomp skip themselves where there is none.
NOT_ON = {
    "aarch64": {
        r"test_fork_storm.*": "thousands of forks of many threads take qemu minutes",
        r"test_forks\[(spawn|open_pipe|run_shell)\]": HOST_PROGRAMS,
        r"test_forks\[vfork_child_allocates\]": "qemu's vfork is fork",
        r"test_forks\[child_lives_on\]": "qemu's child of a process with threads can have none",
        r"test_own_operators_beside_jemalloc.*": HOST_PROGRAMS,
        r"test_link_flags\[STATIC_TLS\]": "AArch64's linker does not set this flag",
        r"test_same_as_glibc\[.*align.*_table\]": "qemu lets glibc's malloc crash where it refuses",
    },
    "musl": {
        r"test_forks\[(spawn|open_pipe|run_shell)\]": HOST_PROGRAMS,
        r"test_forks\[while_streams_are_flushed\]": "can hang: README, Fork",
        r"test_other_libraries_handlers\[before_\w+\]": NO_PREINIT,
        r"test_other_libraries_handlers\[exit_forks\]": "musl's own fork hangs in a destructor",
        r"test_threads.*\[(early|both)_key_destructors?\]": NO_PREINIT,
        r"test_threads.*\[strerror_in_fresh_threads\]": "musl's strerror does not say the number",
        r"test_ifunc_resolver_of_a_library.*": NO_IFUNC,
        r"test_binding\[ifunc_.*": NO_IFUNC,
        r"test_exports\[dlm?open\]": "RTLD_DEEPBIND is glibc's",
        r"test_library_as_a_plugin": "musl opens no library that has static TLS",
        r"test_plugins.*": "the plugins are C++",
        r"test_same_as_glibc.*": "there is no glibc to compare with",
    },
}


def why_not(platform, test):
  """The reason not to run a test, or None."""
  return next((reason for pattern, reason in NOT_ON[platform].items()
               if re.fullmatch(pattern, test)), None)
