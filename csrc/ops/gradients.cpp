// Large gradients on the CPU. The C library takes a block of megabytes from the system each time it is allocated and
// gives it back each time it is freed; the system clears it page by page as it is first written, which takes several
// times longer than to compute the gradient. Training asks for the same sizes at every step: so a freed block waits for
// the next request of its size, and a new one asks for pages of 2 MiB. The system may take memory that has waited for a
// while when it runs short.
#include "gradients.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Functions.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <list>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>

namespace detkd {
namespace {

constexpr size_t kLarge = 1 << 20;     // bytes; the C library keeps smaller blocks itself
constexpr size_t kWaiting = 512 << 20;  // bytes of all blocks that wait, at most
// Bytes of the blocks freed last, which are not offered to the system: that costs a system call when they are freed and
// more when they are written again, 15 to 30 us for a gradient that takes 150.
constexpr size_t kReady = 64 << 20;

struct Block {
  void* begin;
  size_t bytes;
  bool offered = false;
};

// Aligned to a large page, so that as much of it as can be consists of such.
Block map_block(size_t bytes) {
  constexpr uintptr_t kPage = 2 << 20;
  char* mapped = static_cast<char*>(
      mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  TORCH_CHECK(mapped != MAP_FAILED, "detkd: no memory for a gradient of ", bytes, " bytes");
  const size_t skipped = (kPage - reinterpret_cast<uintptr_t>(mapped) % kPage) % kPage;
  char* begin = mapped + skipped;
  if (skipped > 0) munmap(mapped, skipped);
  munmap(begin + bytes, kPage - skipped);
  madvise(begin, bytes / kPage * kPage, MADV_HUGEPAGE);  // advice: where it fails, nothing is lost
  return {begin, bytes};
}

class Recycler final : public c10::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    constexpr size_t kSmallPage = 4096;
    bytes = (bytes + kSmallPage - 1) / kSmallPage * kSmallPage;
    auto* block = new Block(take(bytes));
    c10::profiledCPUMemoryReporter().New(block->begin, bytes);
    return {block->begin, block, &give_back, at::kCPU};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  static Recycler& instance() {
    static auto* recycler = new Recycler;  // never destroyed: tensors may outlive static objects
    return *recycler;
  }

 private:
  Block take(size_t bytes) {
    {
      const std::lock_guard guard(mutex);
      const auto fits = std::find_if(waiting.begin(), waiting.end(), [&](const Block& b) { return b.bytes == bytes; });
      if (fits != waiting.end()) {
        const Block block{fits->begin, fits->bytes};
        waiting.erase(fits);
        return block;
      }
    }
    return map_block(bytes);
  }

  static void give_back(void* context) {
    const auto* block = static_cast<Block*>(context);
    c10::profiledCPUMemoryReporter().Delete(block->begin);
    instance().keep(*block);
    delete block;
  }

  void keep(const Block& block) {
    const std::lock_guard guard(mutex);
    waiting.push_front(block);
    size_t total = 0;
    std::erase_if(waiting, [&](Block& b) {  // those that have waited longest
      total += b.bytes;
      if (total > kWaiting) {
        munmap(b.begin, b.bytes);
      } else if (total > kReady && !b.offered) {
        b.offered = madvise(b.begin, b.bytes, MADV_FREE) == 0;  // pages stay until the system needs them
      }
      return total > kWaiting;
    });
  }

  std::mutex mutex;
  std::list<Block> waiting;
};

}  // namespace

at::Tensor empty_gradient(const at::Tensor& student) {
  if (!student.is_cpu() || student.nbytes() < kLarge) return at::empty_like(student);
  const auto strides = student.is_non_overlapping_and_dense()
                           ? student.strides().vec()
                           : at::infer_dense_strides(student.sizes(), student.strides());
  return at::detail::empty_strided_generic(student.sizes(), strides, &Recycler::instance(),
                                           c10::DispatchKeySet(c10::DispatchKey::CPU), student.scalar_type());
}

}  // namespace detkd

#else

at::Tensor detkd::empty_gradient(const at::Tensor& student) { return at::empty_like(student); }

#endif
