/* The subcommands that need nothing but the library. */
#ifndef FA_CLI_COMMANDS_H
#define FA_CLI_COMMANDS_H

int fa_info_command(int argc, const char **argv);
int fa_run_command(int argc, const char **argv);
int fa_check_command(int argc, const char **argv);
int fa_bench_command(int argc, const char **argv);
int fa_tune_command(int argc, const char **argv);
int fa_report_command(int argc, const char **argv);
int fa_sim_command(int argc, const char **argv);

#endif
