// The launchers as plain functions, for ctypes and sanitized_main.cpp; each returns what the launcher returns. Strides
// are the student's and the teacher's; gradient, weight, mask and
// loss have no gaps. The mask is of whole rows.
#pragma once

#include <cstdint>

extern "C" {

struct Logits {
  int type;
  const void *student, *teacher;
  void* gradient;
  const float *weight, *mask;
  float* loss;
  int64_t outer, step;  // runs, and from one to the next
  int64_t inner;
  float temperature, scale;
  bool reduced;
};

int emulate_kl_div(const Logits* x, int64_t classes, int64_t class_step);
int emulate_binary_kl(const Logits* x, float beta, bool cross_entropy);

struct Maps {
  int type;
  const void *student, *teacher;
  void* gradient;
  const float* weight;
  float* loss;
  int64_t batch, channels, teacher_channels, positions;
  int64_t student_batch, student_channel, teacher_batch, teacher_channel;
  float scale;
};

int emulate_attention_transfer(const Maps* x, float power);
int emulate_attention_mse(const Maps* x, float temperature, float attention_gain);
int emulate_standardized_mse(const Maps* x, float eps);

int emulate_scale(int type, void* gradient, int64_t count, const float* factor);

// Bytes of scratch that the last op asked for.
int64_t emulated_workspace();

// See emulation::take_launches(); valid until the next call.
const char* emulated_launches();
}
