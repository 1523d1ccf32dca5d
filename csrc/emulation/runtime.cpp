// The two ways to run a block, see include/cuda_runtime_api.h.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;
std::atomic<uint64_t> emulation::moved = 0;

void emulation::check_alignment(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes == 0) return;
  std::fprintf(stderr, "emulation: access of %zu bytes at %p\n", bytes, address);
  std::abort();
}

namespace {

std::string launches;
std::vector<unsigned> slots;

// Of the size that was asked for, so that AddressSanitizer sees what reaches beyond, and filled with NaN.
struct SharedMemory {
  explicit SharedMemory(unsigned bytes) : size(bytes), room(::operator new(size, std::align_val_t{16})) {
    std::memset(room, 0xff, size);
  }
  ~SharedMemory() { ::operator delete(room, std::align_val_t{16}); }

  size_t size;
  void* room;
};
std::unique_ptr<SharedMemory> shared;

void start_block(unsigned threads, unsigned shared_bytes) {
  slots.assign(threads, 0);
  shared = std::make_unique<SharedMemory>(shared_bytes);
}

}  // namespace

std::string emulation::take_launches() { return std::exchange(launches, {}); }
unsigned& emulation::slot(unsigned lane) { return slots[threadIdx.x / 32 * 32 + lane]; }
void* emulation::shared_memory() { return shared->room; }

#ifdef DETKD_REAL_THREADS

#include <barrier>
#include <thread>

namespace {

using Barrier = std::barrier<>;
std::unique_ptr<Barrier> block_barrier;
std::vector<std::unique_ptr<Barrier>> warp_barriers;

}  // namespace

void emulation::wait_for_block() { block_barrier->arrive_and_wait(); }
void emulation::wait_for_warp() { warp_barriers[threadIdx.x / 32]->arrive_and_wait(); }

static void run_blocks(unsigned blocks, unsigned threads, unsigned shared_bytes, const std::function<void()>& body) {
  for (unsigned block = 0; block < blocks; ++block) {
    block_barrier = std::make_unique<Barrier>(threads);
    warp_barriers.clear();
    for (unsigned first = 0; first < threads; first += 32) {
      warp_barriers.push_back(std::make_unique<Barrier>(std::min(32u, threads - first)));
    }
    start_block(threads, shared_bytes);
    std::vector<std::thread> running;
    for (unsigned i = 0; i < threads; ++i) {
      running.emplace_back([&, i] {
        threadIdx = {i, 0, 0};
        blockIdx = {block, 0, 0};
        blockDim = {threads, 1, 1};
        gridDim = {blocks, 1, 1};
        body();
        block_barrier->arrive_and_drop();
        warp_barriers[i / 32]->arrive_and_drop();
      });
    }
    for (auto& thread : running) thread.join();
  }
}

#else

#include <setjmp.h>
#include <ucontext.h>

namespace {

constexpr size_t kStack = 64 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

// Entered once by its context, and from then on by jumps, which cost no system call; it runs one block after the other.
struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool entered = false;
  jmp_buf place;
  State state = State::kReady;
};

std::vector<Fiber> fibers;
jmp_buf scheduler;
unsigned running;
const std::function<void()>* work;

void stop_at(State state) {
  fibers[running].state = state;
  if (_setjmp(fibers[running].place) == 0) _longjmp(scheduler, 1);
}

void enter() {
  for (;;) {
    (*work)();
    stop_at(State::kDone);
  }
}

__attribute__((noinline)) void go_on(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.entered) _longjmp(fiber.place, 1);
  fiber.entered = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = kStack;
  makecontext(&context, enter, 0);
  setcontext(&context);
}

// Lets those go on who wait in [first, last) if nobody there is still to come.
bool release(unsigned first, unsigned last, State waiting) {
  bool any = false;
  for (unsigned i = first; i < last; ++i) {
    if (fibers[i].state != waiting && fibers[i].state != State::kDone) return false;
    any = any || fibers[i].state == waiting;
  }
  for (unsigned i = first; i < last; ++i) {
    if (fibers[i].state == waiting) fibers[i].state = State::kReady;
  }
  return any;
}

bool step(unsigned threads) {
  bool moved = false;
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i].state != State::kReady) continue;
    running = i;
    threadIdx.x = i;
    go_on(fibers[i]);
    moved = true;
  }
  for (unsigned first = 0; first < threads; first += 32) {
    moved = release(first, std::min(first + 32, threads), State::kAtWarp) || moved;
  }
  return release(0, threads, State::kAtBlock) || moved;
}

}  // namespace

void emulation::wait_for_block() { stop_at(State::kAtBlock); }
void emulation::wait_for_warp() { stop_at(State::kAtWarp); }

static void run_blocks(unsigned blocks, unsigned threads, unsigned shared_bytes, const std::function<void()>& body) {
  work = &body;
  if (fibers.size() < threads) fibers.resize(threads);
  blockDim = {threads, 1, 1};
  gridDim = {blocks, 1, 1};
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx = {block, 0, 0};
    start_block(threads, shared_bytes);
    for (unsigned i = 0; i < threads; ++i) fibers[i].state = State::kReady;
    while (step(threads)) {
    }
    for (unsigned i = 0; i < threads; ++i) {
      if (fibers[i].state == State::kDone) continue;
      std::fprintf(stderr, "emulation: threads wait for others that never come\n");
      std::abort();
    }
  }
}

#endif

void emulation::launch(const char* kernel, unsigned blocks, unsigned threads, unsigned shared_bytes,
                       const std::function<void()>& body) {
  const uint64_t before = moved;
  run_blocks(blocks, threads, shared_bytes, body);
  launches += kernel;
  for (const uint64_t number : {uint64_t{blocks}, uint64_t{threads}, uint64_t{shared_bytes}, moved - before}) {
    launches += '\t' + std::to_string(number);
  }
  launches += '\n';
}
