/* What ran when, as a trace for Perfetto: a process a core, a row a queue. An event is as long as it keeps its queue busy; the
 * argument `ends` says when its result is there, in us. */
#include "davinci/core.h"

#include <stdlib.h>

typedef struct event {
  const char *name;
  double begin, free, end; /* us; the queue starts its next instruction from `free` on */
  short group;
  unsigned char core, pipe;
} event;

struct dv_trace {
  event *events;
  size_t count, room;
  double at; /* us: where the present launch begins */
  int has_failed;
};

dv_trace *dv_trace_open(void) { return calloc(1, sizeof(dv_trace)); }
void dv_trace_close(dv_trace *trace) {
  if (!trace) return;
  free(trace->events);
  free(trace);
}

void dv_trace_event(dv_trace *trace, const dv_core *core, dv_pipe pipe, const char *name, double begin, double free, double end) {
  if (trace->count == trace->room) {
    const size_t room = trace->room ? 2 * trace->room : 4096;
    event *events = trace->has_failed ? NULL : realloc(trace->events, room * sizeof *events);
    if (!events) {
      trace->has_failed = 1;
      return;
    }
    trace->events = events;
    trace->room = room;
  }
  const double us = core->run->chip->figures.clock_ghz * 1e3;
  const event added = {name, trace->at + begin / us, trace->at + free / us, trace->at + end / us, (short)core->group->number,
                       (unsigned char)(core->is_aic ? 0 : 1 + core->sub), (unsigned char)pipe};
  trace->events[trace->count++] = added;
}

void dv_trace_launch(dv_trace *trace, const dv_chip *chip, double cycles) {
  trace->at += cycles / (chip->figures.clock_ghz * 1e3);
}

int dv_trace_write(const dv_trace *trace, FILE *file) {
  static const char *const cores[] = {"AIC", "AIV 0", "AIV 1"};
  static const char *const pipes[] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX"};
  unsigned char named[DV_MOST_GROUPS][DV_CORES_A_GROUP] = {{0}};
  fprintf(file, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
  const char *between = "\n";
  for (size_t n = 0; n < trace->count; ++n) {
    const event *e = &trace->events[n];
    const int process = e->group * DV_CORES_A_GROUP + e->core;
    if (!named[e->group][e->core]) {
      named[e->group][e->core] = 1;
      fprintf(
          file,
          "%s{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":\"group %d %s (model)\"}}",
          between, process, e->group, cores[e->core]);
      between = ",\n";
      for (int p = 0; p < DV_PIPES; ++p)
        fprintf(file,
                ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%d,\"args\":{\"name\":\"%s\"}}",
                process, p, pipes[p]);
    }
    fprintf(file,
            ",\n{\"ph\":\"X\",\"name\":\"%s\",\"pid\":%d,\"tid\":%d,\"ts\":%.4f,\"dur\":%.4f,\"args\":{"
            "\"ends\":%.4f}}",
            e->name, process, e->pipe, e->begin, e->free - e->begin, e->end);
  }
  fprintf(file, "\n]}\n");
  return !trace->has_failed && !ferror(file);
}
