/* What `fastattn sim` shows: a table for people, rows for programs. */
#ifndef FA_CLI_SIM_ROWS_H
#define FA_CLI_SIM_ROWS_H

#include "sim_run.h"

/* A model that says more than this share of peak is wrong: what is known of the core does not allow it. */
enum { FA_SIM_MOST_BELIEVED = 75 /* per cent */ };

void fa_sim_print_chip(const fa_sim_chip *chip);
void fa_sim_print_head(const fa_bench_case *c);
void fa_sim_print_row(const fa_sim_chip *chip, const fa_sim_tiling *tiling, const fa_sim_result *result);
/* slow / fast */
void fa_sim_print_ratio(const fa_sim_tiling *fast, const fa_sim_result *fast_result,
                        const fa_sim_tiling *slow, const fa_sim_result *slow_result);
void fa_sim_add_row(cJSON *rows, const fa_sim_chip *chip, const fa_sim_tiling *tiling, const fa_bench_case *c,
                    const fa_sim_result *result);
/* What was compared with the oracle. */
void fa_sim_add_check(cJSON *row, const fa_sim_check *check);
/* What every row says of the chip and where its numbers come from. */
void fa_sim_add_origin(cJSON *row, const fa_sim_chip *chip);

/* The parameters of all chips: to stdout, and to rows unless that is NULL. */
int fa_sim_show_parameters(bool prints, cJSON *rows);

#endif
