// Tensors in GM and in a core's own memories, and the framework that lays the latter out (TPipe, TBuf, TQue). Part of kernel_operator.h.
#ifndef DV_KERNEL_TENSOR_H
#define DV_KERNEL_TENSOR_H

#include "kernel_sync.h"

namespace AscendC {

template <typename T>
class LocalTensor {
 public:
  using PrimType = T;
  LocalTensor() = default;
  // end: of the buffer in the core's memory, behind which no instruction reaches (0: not known).
  LocalTensor(dv_memory memory, uint64_t at, uint64_t bytes, uint64_t end)
      : address_{memory, static_cast<uint32_t>(end), at}, bytes_(bytes) {}

  LocalTensor operator[](uint32_t offset) const {
    const uint64_t bytes = static_cast<uint64_t>(offset) * sizeof(T);
    return LocalTensor(address_.memory, address_.at + bytes, bytes_ > bytes ? bytes_ - bytes : 0, address_.end);
  }
  template <typename U>
  LocalTensor<U> ReinterpretCast() const {
    return LocalTensor<U>(address_.memory, address_.at, bytes_, address_.end);
  }
  T GetValue(uint32_t index, DV_HERE("GetValue")) const { return OfBits<T>(dv_scalar_load(here, At(index), sizeof(T))); }
  void SetValue(uint32_t index, T value, DV_HERE("SetValue")) const {
    dv_scalar_store(here, At(index), sizeof(T), BitsOf(value));
  }
  uint32_t GetSize() const { return static_cast<uint32_t>(bytes_ / sizeof(T)); }
  uint32_t GetLength() const { return static_cast<uint32_t>(bytes_); }
  void SetSize(uint32_t size) { bytes_ = static_cast<uint64_t>(size) * sizeof(T); }
  uint64_t GetPhyAddr() const { return address_.at; }
  dv_address Address() const { return address_; }

 private:
  dv_address At(uint32_t index) const { return dv_further(address_, static_cast<uint64_t>(index) * sizeof(T)); }
  dv_address address_ = {DV_GM, 0, 0};
  uint64_t bytes_ = 0;
};

template <typename T>
class GlobalTensor {
 public:
  using PrimType = T;
  void SetGlobalBuffer(__gm__ T *buffer) { buffer_ = buffer; }
  void SetGlobalBuffer(__gm__ T *buffer, uint64_t size) {
    buffer_ = buffer;
    size_ = size;
  }
  GlobalTensor operator[](uint64_t offset) const {
    GlobalTensor moved;
    moved.buffer_ = buffer_ + offset;
    moved.size_ = size_ > offset ? size_ - offset : 0;
    return moved;
  }
  T GetValue(uint64_t index, DV_HERE("GetValue")) const { return OfBits<T>(dv_scalar_load(here, At(index), sizeof(T))); }
  void SetValue(uint64_t index, T value, DV_HERE("SetValue")) const {
    dv_scalar_store(here, At(index), sizeof(T), BitsOf(value));
  }
  uint64_t GetSize() const { return size_; }
  const __gm__ T *GetPhyAddr() const { return buffer_; }
  const __gm__ T *GetPhyAddr(uint64_t offset) const { return buffer_ + offset; }
  dv_address Address() const { return {DV_GM, 0, (uint64_t)(buffer_)}; }

 private:
  dv_address At(uint64_t index) const { return {DV_GM, 0, (uint64_t)(buffer_ + index)}; }
  __gm__ T *buffer_ = nullptr;
  uint64_t size_ = 0;
};

// ------------------------------------------------------------------ layout of a core's memories

template <TPosition position>
class TBuf {
 public:
  template <typename T>
  LocalTensor<T> Get() const {
    return LocalTensor<T>(MemoryOf(position), at_, bytes_, at_ + bytes_);
  }
  template <typename T>
  LocalTensor<T> Get(uint32_t size) const {
    return LocalTensor<T>(MemoryOf(position), at_, static_cast<uint64_t>(size) * sizeof(T), at_ + bytes_);
  }
  // `size` elements from `offset` bytes on.
  template <typename T>
  LocalTensor<T> GetWithOffset(uint32_t size, uint32_t offset, DV_HERE("GetWithOffset")) const {
    const uint64_t bytes = static_cast<uint64_t>(size) * sizeof(T);
    if (offset + bytes > bytes_)
      dv_broken_rule(here, "bytes %u to %llu of a buffer of %llu", offset, (unsigned long long)(offset + bytes),
                     (unsigned long long)bytes_);
    return LocalTensor<T>(MemoryOf(position), at_ + offset, bytes, at_ + bytes_);
  }
  uint32_t GetBufLen() const { return static_cast<uint32_t>(bytes_); }

 private:
  friend class TPipe;
  uint64_t at_ = 0, bytes_ = 0;
};

// A queue of buffers between the pipe that fills a position and the one that empties it: one flag each way a buffer.
template <TPosition position, int32_t depth>
class TQue {
 public:
  template <typename T>
  LocalTensor<T> AllocTensor(DV_HERE("AllocTensor")) {
    Buffer &buffer = buffers_[next_];
    if (count_ == 0 || buffer.is_out) dv_broken_rule(here, "all %d buffers of the queue are in use", count_);
    if (buffer.was_freed) dv_issue_wait_flag(here, Consumer(), Producer(), Event(next_));
    buffer.is_out = true;
    next_ = (next_ + 1) % count_;
    return LocalTensor<T>(MemoryOf(position), buffer.at, bytes_, buffer.at + bytes_);
  }
  template <typename T>
  bool EnQue(const LocalTensor<T> &tensor, DV_HERE("EnQue")) {
    const int32_t at = Find(tensor, here);
    dv_issue_set_flag(here, Producer(), Consumer(), Event(at));
    if (queued_ == kMost) dv_broken_rule(here, "the queue is full");
    fifo_[(first_ + queued_++) % kMost] = at;
    return true;
  }
  template <typename T>
  LocalTensor<T> DeQue(DV_HERE("DeQue")) {
    if (queued_ == 0) dv_broken_rule(here, "the queue is empty");
    const int32_t at = fifo_[first_];
    first_ = (first_ + 1) % kMost;
    --queued_;
    dv_issue_wait_flag(here, Producer(), Consumer(), Event(at));
    return LocalTensor<T>(MemoryOf(position), buffers_[at].at, bytes_, buffers_[at].at + bytes_);
  }
  template <typename T>
  void FreeTensor(const LocalTensor<T> &tensor, DV_HERE("FreeTensor")) {
    const int32_t at = Find(tensor, here);
    buffers_[at].is_out = false;
    buffers_[at].was_freed = true;
    dv_issue_set_flag(here, Consumer(), Producer(), Event(at));
  }
  bool HasTensorInQue() const { return queued_ > 0; }
  // The flags of buffers given back and not taken again; the framework waits for them when the kernel ends.
  ~TQue() {
    const dv_here here = {"~TQue", __FILE__, __LINE__};
    for (int32_t n = 0; n < count_; ++n)
      if (buffers_[n].was_freed && !buffers_[n].is_out) dv_issue_wait_flag(here, Consumer(), Producer(), Event(n));
  }

 private:
  friend class TPipe;
  static constexpr int32_t kMost = 8;
  struct Buffer {
    uint64_t at;
    bool is_out, was_freed;
  };
  static constexpr dv_pipe Producer() {
    switch (position) {
      case TPosition::A2: case TPosition::B2: return DV_MTE1;
      case TPosition::CO1: return DV_M;
      case TPosition::VECOUT: return DV_V;
      default: return DV_MTE2;
    }
  }
  static constexpr dv_pipe Consumer() {
    switch (position) {
      case TPosition::A1: case TPosition::B1: case TPosition::C1: return DV_MTE1;
      case TPosition::A2: case TPosition::B2: return DV_M;
      case TPosition::CO1: return DV_FIX;
      case TPosition::VECOUT: return DV_MTE3;
      default: return DV_V;
    }
  }
  int32_t Event(int32_t at) const { return first_event_ + at; }
  template <typename T>
  int32_t Find(const LocalTensor<T> &tensor, dv_here here) const {
    for (int32_t n = 0; n < count_; ++n)
      if (buffers_[n].at == tensor.Address().at) return n;
    dv_broken_rule(here, "a tensor that is not of this queue");
    return 0;
  }
  Buffer buffers_[kMost] = {};
  int32_t fifo_[kMost] = {};
  int32_t count_ = 0, next_ = 0, first_ = 0, queued_ = 0, first_event_ = 0;
  uint64_t bytes_ = 0;
};

class TPipe {
 public:
  template <TPosition position>
  bool InitBuffer(TBuf<position> &buffer, uint32_t bytes, DV_HERE("InitBuffer")) {
    buffer.bytes_ = Rounded(bytes);
    buffer.at_ = Take(MemoryOf(position), buffer.bytes_, here);
    return true;
  }
  template <TPosition position, int32_t depth>
  bool InitBuffer(TQue<position, depth> &queue, uint8_t count, uint32_t bytes, DV_HERE("InitBuffer")) {
    if (count > TQue<position, depth>::kMost) dv_broken_rule(here, "%d buffers of a queue; it has at most 8", count);
    queue.bytes_ = Rounded(bytes);
    queue.count_ = count;
    int32_t &events = events_[static_cast<int>(queue.Producer())][static_cast<int>(queue.Consumer())];
    queue.first_event_ = events;
    events += count;
    for (int32_t n = 0; n < count; ++n) queue.buffers_[n].at = Take(MemoryOf(position), queue.bytes_, here);
    return true;
  }
  void Reset() { memset(used_, 0, sizeof used_); }
  void Destroy() {}

 private:
  static uint64_t Rounded(uint32_t bytes) { return (static_cast<uint64_t>(bytes) + 31) / 32 * 32; }
  uint64_t Take(dv_memory memory, uint64_t bytes, dv_here here) {
    const uint64_t at = used_[memory];
    used_[memory] += bytes;
    if (used_[memory] > dv_memory_bytes(memory))
      dv_broken_rule(here, "buffers of %llu bytes in a memory of %u", (unsigned long long)used_[memory], dv_memory_bytes(memory));
    return at;
  }
  uint64_t used_[DV_MEMORIES] = {};
  int32_t events_[DV_PIPES][DV_PIPES] = {};
};

} // namespace AscendC

#endif
