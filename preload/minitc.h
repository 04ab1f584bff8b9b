/* What libminitc.so offers beside the standard's allocation functions. C11 and C++11.
 *
 * A program that may run without the library declares what it uses as weak and tests it for null:
 *   #pragma weak minitc_version
 *   if (minitc_version) puts(minitc_version());
 */
#ifndef MINITC_H
#define MINITC_H

#define MINITC_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library that is loaded, as "MAJOR.MINOR.PATCH"; static storage, never null. */
__attribute__((visibility("default"))) const char* minitc_version(void);

/* Appends a line to the file that MINITC_STATS_FILE names. 1 if that was done; 0 if there is no
 * such file, it cannot be written, or another thread is writing a line. */
__attribute__((visibility("default"))) int minitc_stats_write(void);

#ifdef __cplusplus
}
#endif

#endif
