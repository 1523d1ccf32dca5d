// The two ways to run a block, see include/cuda_runtime_api.h.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

#ifdef DETKD_REAL_THREADS

#include <barrier>
#include <memory>
#include <thread>

namespace {

using Barrier = std::barrier<>;
std::unique_ptr<Barrier> block_barrier;
std::vector<std::unique_ptr<Barrier>> warp_barriers;
std::vector<uint64_t> slots;

}  // namespace

void emulation::wait_for_block() { block_barrier->arrive_and_wait(); }
void emulation::wait_for_warp() { warp_barriers[threadIdx.x / 32]->arrive_and_wait(); }
void* emulation::slot(unsigned lane) { return &slots[threadIdx.x / 32 * 32 + lane]; }

void emulation::launch(unsigned blocks, unsigned threads, const std::function<void()>& body) {
  for (unsigned block = 0; block < blocks; ++block) {
    block_barrier = std::make_unique<Barrier>(threads);
    warp_barriers.clear();
    for (unsigned first = 0; first < threads; first += 32) {
      warp_barriers.push_back(std::make_unique<Barrier>(std::min(32u, threads - first)));
    }
    slots.assign((threads + 31) / 32 * 32, 0);
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

#include <ucontext.h>

namespace {

constexpr size_t kStack = 64 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  State state = State::kReady;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
unsigned running;
const std::function<void()>* work;
std::vector<uint64_t> slots;

void stop_at(State state) {
  fibers[running].state = state;
  swapcontext(&fibers[running].context, &scheduler);
}

void enter() {
  (*work)();
  fibers[running].state = State::kDone;
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
    swapcontext(&scheduler, &fibers[i].context);
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
void* emulation::slot(unsigned lane) { return &slots[threadIdx.x / 32 * 32 + lane]; }

void emulation::launch(unsigned blocks, unsigned threads, const std::function<void()>& body) {
  work = &body;
  fibers.resize(threads);
  blockDim = {threads, 1, 1};
  gridDim = {blocks, 1, 1};
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx = {block, 0, 0};
    slots.assign((threads + 31) / 32 * 32, 0);
    for (Fiber& fiber : fibers) {
      fiber.stack.resize(kStack);
      fiber.state = State::kReady;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, enter, 0);
    }
    while (step(threads)) {
    }
    for (const Fiber& fiber : fibers) {
      if (fiber.state == State::kDone) continue;
      std::fprintf(stderr, "emulation: threads wait for others that never come\n");
      std::abort();
    }
  }
}

#endif
