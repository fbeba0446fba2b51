// Memory that only grows, kept from call to call, so that a step allocates nothing once it is warm.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace fg {

template <typename T>
class Buffer {  // of plain numbers, aligned to a cache line; growing loses what it held
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* reserve(int64_t n) {
    if (n > size_) {
      std::free(data_);
      size_ = n + n / 4;
      const size_t bytes = (static_cast<size_t>(size_) * sizeof(T) + 63) / 64 * 64;
      data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
      if (!data_) throw std::bad_alloc();
    }
    return data_;
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace fg
