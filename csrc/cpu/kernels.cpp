#include "kernels.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <memory>
#include <string_view>

namespace detkd {
namespace {

const Kernels& choose() {
  const char* name = std::getenv("DETKD_CPU");
  const std::string_view wanted = name == nullptr ? "" : name;
  for (const Kernels* table : {avx512_kernels(), avx2_kernels(), portable_kernels()}) {
    if (table != nullptr && (wanted.empty() || wanted == table->name)) return *table;
  }
  TORCH_CHECK(false, "Expected DETKD_CPU to be an instruction set of this processor (avx512, avx2, portable), but got ",
              wanted);
}

}  // namespace

float* scratch(int64_t values) {
  thread_local std::vector<float> room;
  const size_t needed = values + kLine / sizeof(float);
  if (room.size() < needed) room.resize(needed);
  void* begin = room.data();
  size_t bytes = room.size() * sizeof(float);
  return static_cast<float*>(std::align(kLine, values * sizeof(float), begin, bytes));
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace detkd
