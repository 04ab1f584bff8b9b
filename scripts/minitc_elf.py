"""What the command minitc wants to know of an ELF file: its kind, its libraries, its symbols."""
import dataclasses
import mmap
import struct

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

MALLOC = ("malloc", "free", "calloc", "realloc")
SANITIZERS = {"__asan_init": "AddressSanitizer", "__hwasan_init": "HWAddressSanitizer",
              "__lsan_init": "LeakSanitizer", "__msan_init": "MemorySanitizer",
              "__tsan_init": "ThreadSanitizer"}
# Allocators that a program can have inside under names of their own: a symbol, or where the program
# is stripped a piece of their messages.
EMBEDDED = {"_rjem_malloc": "jemalloc", "je_malloc": "jemalloc", "mi_malloc": "mimalloc",
            "tc_malloc": "tcmalloc"}
MESSAGES = {b"<jemalloc>: ": "jemalloc", b"mimalloc: ": "mimalloc"}
NAMES = (*MALLOC, *SANITIZERS, *EMBEDDED)
# name, info, other, section, value, size of a symbol in a file for 64 bits
SYMBOL = struct.Struct("<IBBHQQ")


class NotElf(Exception):
  """A file that is no ELF file, or a broken one."""


@dataclasses.dataclass(frozen=True)
class Elf:
  """One file. exported, hidden: those of NAMES that it defines for others, and for itself only."""
  path: str
  bits: int
  machine: str
  interpreter: str | None
  needed: tuple
  exported: frozenset
  hidden: frozenset
  embedded: frozenset
  is_go: bool

  @property
  def sanitizer(self):
    """The sanitizer whose runtime is linked in, or None."""
    found = sorted(SANITIZERS.keys() & (self.exported | self.hidden))
    return SANITIZERS[found[0]] if found else None

  @property
  def defines_malloc(self):
    return bool({"malloc", "free"} & self.exported)


def offsets_of(strings):
  """{offset: name}: every place in a table of strings at which one of NAMES can be read. A linker
  lets a name begin in the middle of a longer one."""
  found = {}
  for name in NAMES:
    word = name.encode() + b"\0"
    at = strings.find(word)
    while at >= 0:
      found[at] = name
      at = strings.find(word, at + 1)
  return found


def defined(elf, section_name):
  """Those of NAMES that a table of symbols defines. By hand: a program may have a million symbols."""
  section = elf.get_section_by_name(section_name)
  if section is None or elf.elfclass != 64 or section.header.sh_type == "SHT_NOBITS":
    return frozenset()
  names = offsets_of(elf.get_section(section.header.sh_link).data())
  data = section.data()
  return frozenset(names[name] for name, _, _, index, _, _ in
                   SYMBOL.iter_unpack(data[:len(data) - len(data) % SYMBOL.size])
                   if index != 0 and name in names)


def read(path):
  """Looks into a file. An OSError is passed on."""
  with open(path, "rb") as file:
    try:
      elf = ELFFile(file)
      exported = defined(elf, ".dynsym")
      hidden = defined(elf, ".symtab") - exported
      interpreter, needed = None, ()
      for segment in elf.iter_segments():
        if segment.header.p_type == "PT_INTERP":
          interpreter = segment.get_interp_name()
        elif segment.header.p_type == "PT_DYNAMIC":
          needed = tuple(tag.needed for tag in segment.iter_tags("DT_NEEDED"))
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        messages = {name for text, name in MESSAGES.items() if content.find(text) >= 0}
      return Elf(path=str(path), bits=elf.elfclass, machine=elf.get_machine_arch(),
                 interpreter=interpreter, needed=needed, exported=exported, hidden=hidden,
                 embedded=frozenset(messages | {EMBEDDED[name] for name in
                                                EMBEDDED.keys() & (exported | hidden)}),
                 is_go=elf.get_section_by_name(".go.buildinfo") is not None)
    # pyelftools meets a torn file with whatever comes of reading it.
    except (ELFError, ValueError, struct.error, KeyError, AttributeError, TypeError,
            UnicodeDecodeError, OverflowError, MemoryError) as problem:
      raise NotElf(f"{path}: not an ELF file, or a broken one ({problem})") from problem


def slots_of(path, name):
  """Where, from the beginning of a loaded file, the loader writes the address of a function that the
  file calls."""
  with open(path, "rb") as file:
    elf = ELFFile(file)
    base = min(s.header.p_vaddr for s in elf.iter_segments() if s.header.p_type == "PT_LOAD")
    return [relocation["r_offset"] - base
            for section in elf.iter_sections()
            if section.header.sh_type == "SHT_RELA" and section.header.sh_link
            for relocation in section.iter_relocations()
            if elf.get_section(section.header.sh_link).get_symbol(
                relocation["r_info_sym"]).name == name]
