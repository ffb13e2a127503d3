// Flags, barriers and who one is. Part of kernel_operator.h.
#ifndef DV_KERNEL_SYNC_H
#define DV_KERNEL_SYNC_H

#include "kernel_types.h"

#define ASCEND_IS_AIC (dv_is_aic() != 0)
#define ASCEND_IS_AIV (dv_is_aic() == 0)
// The host's launch says how many AIVs go with an AIC (dv_launch.cores).
#define KERNEL_TYPE_AIV_ONLY 0
#define KERNEL_TYPE_AIC_ONLY 1
#define KERNEL_TYPE_MIX_AIV_1_0 2
#define KERNEL_TYPE_MIX_AIC_1_0 3
#define KERNEL_TYPE_MIX_AIC_1_1 4
#define KERNEL_TYPE_MIX_AIC_1_2 5
#define KERNEL_TASK_TYPE_DEFAULT(type) dv_task_type(type)

namespace AscendC {

// What KERNEL_TASK_TYPE_DEFAULT stands for here; the launch itself says it again (davinci.h).
inline void dv_task_type(int) {}

template <HardEvent event>
inline void SetFlag(int32_t id, DV_HERE("SetFlag")) {
  dv_issue_set_flag(here, PipesOf(event).from, PipesOf(event).to, id);
}
template <HardEvent event>
inline void WaitFlag(int32_t id, DV_HERE("WaitFlag")) {
  dv_issue_wait_flag(here, PipesOf(event).from, PipesOf(event).to, id);
}
template <pipe_t pipe>
inline void PipeBarrier(DV_HERE("PipeBarrier")) {
  if (pipe == PIPE_S) dv_broken_rule(here, "PIPE_S is in order without, and takes none");
  dv_issue_barrier(here, static_cast<dv_pipe>(pipe));
}
template <uint8_t modeId, pipe_t pipe>
inline void CrossCoreSetFlag(uint16_t flagId, DV_HERE("CrossCoreSetFlag")) {
  dv_issue_cross_set(here, modeId, static_cast<dv_pipe>(pipe), flagId);
}
template <uint8_t modeId = 0, pipe_t pipe = PIPE_S>
inline void CrossCoreWaitFlag(uint16_t flagId, DV_HERE("CrossCoreWaitFlag")) {
  dv_issue_cross_wait(here, modeId, static_cast<dv_pipe>(pipe), flagId);
}
template <bool isAIVOnly = true>
inline void SyncAll(DV_HERE("SyncAll")) {
  dv_issue_sync_all(here, isAIVOnly);
}

template <typename T>
inline void SetAtomicAdd(DV_HERE("SetAtomicAdd")) {
  dv_issue_atomic_add(here, 1, DvType<T>::type);
}
inline void SetAtomicNone(DV_HERE("SetAtomicNone")) { dv_issue_atomic_add(here, 0, DV_F32); }
inline void DisableDmaAtomic(DV_HERE("DisableDmaAtomic")) { dv_issue_atomic_add(here, 0, DV_F32); }

// CTRL[48]: 0, as it is after launch: what is computed in half or bfloat16_t saturates; 1: it has infinities and NaN. The only bit
// this chip documents. A kernel puts back what it changed.
template <int8_t startBit, int8_t endBit>
inline void SetCtrlSpr(int64_t value) {
  static_assert(startBit == 48 && endBit == 48, "only CTRL[48] is there");
  *dv_ctrl_register() = static_cast<uint64_t>(value & 1) << startBit;
}
template <int8_t startBit, int8_t endBit>
inline int64_t GetCtrlSpr() {
  static_assert(startBit == 48 && endBit == 48, "only CTRL[48] is there");
  return static_cast<int64_t>(*dv_ctrl_register() >> startBit & 1);
}
template <SaturationMode mode>
inline void SetSaturationFlag(bool enableSat) {
  static_assert(mode == SaturationMode::FLOAT, "only that of half and bfloat16_t is known here");
  SetCtrlSpr<48, 48>(enableSat ? 0 : 1);
}
template <SaturationMode mode>
inline bool GetSaturationFlag() {
  static_assert(mode == SaturationMode::FLOAT, "only that of half and bfloat16_t is known here");
  return GetCtrlSpr<48, 48>() == 0;
}

// On an AIV of a mixed kernel AIVs are counted, not groups.
inline int64_t GetBlockIdx() {
  return dv_is_aic() ? dv_block_index() : static_cast<int64_t>(dv_block_index()) * dv_task_ratio() + dv_sub_block_index();
}
inline int64_t GetBlockNum() { return dv_block_count(); }
inline int64_t GetSubBlockIdx() { return dv_sub_block_index(); }
inline int64_t GetSubBlockNum() { return dv_task_ratio(); }
inline int64_t GetTaskRatio() { return dv_is_aic() ? 1 : dv_task_ratio(); }
inline int64_t GetTaskRation() { return GetTaskRatio(); } // the older name
inline int64_t GetSystemCycle() { return static_cast<int64_t>(dv_cycle()); }
inline GM_ADDR GetUserWorkspace(GM_ADDR workspace) { return workspace; }
inline GM_ADDR GetSysWorkSpacePtr() { return nullptr; }

} // namespace AscendC

using AscendC::dv_task_type;

#endif
