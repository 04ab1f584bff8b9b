#include "test/model/choices.h"

#include "core/size_class.h"

namespace minitc::test {

std::size_t choose_size(Choices& choices) {
  const std::size_t kind = choices.below(100);
  if (kind < 35) return choices.below(200);
  if (kind < 84) {
    const unsigned cls = 1 + static_cast<unsigned>(choices.below(kNumClasses - 1));
    const std::size_t bytes = kSizeClasses[cls].bytes;
    const std::size_t step = bytes - kSizeClasses[cls - 1].bytes;
    return choices.below(3) == 0 ? bytes + choices.below(2) : bytes - choices.below(step);
  }
  if (kind < 93) return kMaxSmall + choices.below(std::size_t{1} << (14 + choices.below(7)));
  if (kind < 96) return kMoveBytes + choices.below(2 * 1024 * 1024);
  if (kind < 99) return kMoveBytes + choices.below(32) * kMaxPageBytes;
  return SIZE_MAX - choices.below(std::size_t{1} << choices.below(64));
}

Options choose_options(Choices& choices) {
  Options options;
  options.check_free = choices.one_in(4) ? 1 : 0;
  options.on_bad_free = choices.below(2) == 0 ? options.on_bad_free : Options::kIgnore;
  const std::size_t totals[] = {options.thread_cache_total, 0, 64 * 1024, 1024 * 1024,
                                choices.below(1024 * 1024)};
  options.thread_cache_total = choices.one_of(totals);
  const std::size_t bounds[] = {0, 1, kMaxSmall, 8 * 1024 * 1024, choices.below(16 * 1024 * 1024)};
  options.free_bound = choices.one_of(bounds);
  const std::size_t limits[] = {0, 0, 0, 512 * 1024, 4 * 1024 * 1024};
  options.soft_limit = choices.one_of(limits);
  options.release = choices.below(4) == 0 ? Options::kOffer : Options::kDecommit;
  options.huge_pages = choices.below(3);
  return options;
}

std::size_t choose_page_bytes(Choices& choices) {
  const std::size_t sizes[] = {4096, 16 * 1024, kMaxPageBytes};
  return choices.one_of(sizes);
}

FakeOs::Layout choose_layout(Choices& choices) {
  return static_cast<FakeOs::Layout>(choices.below(3));
}

}  // namespace minitc::test
