/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KPOPCTL_H
#define KPOPCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>
#include <asm/kvm_kpop.h>

#define KPOPCTL_VERSION	"1.0"

/*
 * Kinds of failure; the value is the exit status, KIND_NAMES in output.c the
 * word under -j.  A function that returns one returns 0 for success.
 */
enum kind {
	KIND_OK,
	KIND_INTERNAL,
	KIND_USAGE,
	KIND_NO_VM,
	KIND_DEFUNCT,
	KIND_REFUSED,
	KIND_RIGHTS,
	KIND_NO_KPOP,
	KIND_CONFLICT,
	KIND_AMBIGUOUS,
	NR_KINDS,
};

/* Which options a command takes: bits of struct command.options. */
#define TAKES_COMMON	(1u << 0)
#define TAKES_VM	(1u << 1)
#define TAKES_TIMEOUT	(1u << 2)
#define TAKES_EXPECT	(1u << 3)
#define TAKES_SET	(1u << 4)
#define TAKES_DEFUNCT	(1u << 5)
#define TAKES_KNOB	(1u << 6)

#define MAX_KNOBS	32

struct args {
	bool json;
	bool debug;
	bool help;
	pid_t pid;
	const char *name;
	uint64_t vm_id;
	bool by_id;
	int fd;			/* in the VM's process, or -1 */
	unsigned int timeout;	/* seconds */
	uint32_t expect_map;	/* or 0 */
	bool has_cap;
	uint64_t cap;
	int only;		/* -1: leave as it is */
	bool defunct;
	const char *knobs[MAX_KNOBS];
	unsigned int nr_knobs;
	const char *word;	/* the positional argument */
};

/**
 * struct command - one row of the command table, of the help and of parsing
 * @word: name of the positional argument as help prints it; in [] if optional
 * @run: fills @out, what -j prints; returns an enum kind
 * @show: prints @out for people
 */
struct command {
	const char *name;
	const char *word;
	unsigned int options;
	const char *help;
	int (*run)(const struct args *args, struct json_object *out);
	void (*show)(struct json_object *out);
};

extern const struct command commands[];
const struct command *find_command(const char *name);

/* options.c */
int parse_options(int argc, char **argv, unsigned int takes, bool stop_early,
		  struct args *args, int *first_word);
void print_options(unsigned int takes);
void print_usage(const struct command *cmd);
struct json_object *json_options(unsigned int takes);
bool wants_json(int argc, char **argv);

/* help.c */
int cmd_help(const struct args *args, struct json_object *out);
void show_help(struct json_object *out);
int cmd_version(const struct args *args, struct json_object *out);
void show_version(struct json_object *out);

/* output.c: one failure is kept; main() prints it */
extern bool debug;
int fail(enum kind kind, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
int advise(int kind, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void print_failure(bool json);
const char *kind_name(enum kind kind);
const char *kind_help(enum kind kind);
void notice(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void put_u64(struct json_object *o, const char *key, uint64_t v);
void put_bool(struct json_object *o, const char *key, bool v);
void put_str(struct json_object *o, const char *key, const char *v);
struct json_object *put_object(struct json_object *o, const char *key);
struct json_object *put_array(struct json_object *o, const char *key);
struct json_object *append_object(struct json_object *array);
uint64_t get_u64(struct json_object *o, const char *key);
bool get_bool(struct json_object *o, const char *key);
const char *get_str(struct json_object *o, const char *key);
struct json_object *get(struct json_object *o, const char *key);

/* kpop_ioctl.c: the controller's door on /dev/kvm */
int kpop_open(void);
int kpop_info(int vm_fd, struct kvm_kpop_info *info);	/* 0 or -errno */
int kpop_spaces(int vm_fd, struct kvm_kpop_space_info **spaces, size_t *nr);
int kpop_set(int vm_fd, unsigned int op, uint64_t arg);	/* 0 or -errno */
const char *state_name(unsigned int state);
const char *hook_name(unsigned int hook);
const char *eject_name(unsigned int kind);
void put_ejection(struct json_object *o, const struct kvm_kpop_ejection *e);

/* process.c */
bool process_name(pid_t pid, char *name, size_t size);
bool process_is_dead(pid_t pid);

/* vm.c */
struct vm {
	pid_t pid;		/* 0: no process seen */
	int fd;			/* in that process */
	int vm_fd;		/* ours; -1 when the VM is gone */
	bool no_kpop;		/* KVM has no KPOP for it, nor an id */
	char name[64];		/* QEMU's -name, or the program's */
	struct kvm_kpop_info info;
};

struct vm_set {
	struct vm *vms;
	size_t nr;
	unsigned int hidden;	/* processes that could not be looked into */
};

int vm_find_all(struct vm_set *set);
void vm_set_free(struct vm_set *set);
int vm_find(const struct args *args, bool dead_too, struct vm *vm);
int vm_refresh(struct vm *vm);
bool vm_is_taken(const struct vm *vm);
void put_vm(struct json_object *o, const struct vm *vm);
void nap(void);
uint64_t now_ms(void);

/* pin.c: /sys/fs/bpf/kpop/<vm_id>/ */
#define PIN_LINK	"link"

struct link_state {
	int fd;			/* -1: none pinned */
	uint32_t link_id;
	uint32_t map_id;	/* 0: detached */
};

int pin_prepare(uint64_t vm_id, unsigned int timeout, int *lock);
int pin_lock(uint64_t vm_id, unsigned int timeout, int *lock);
void pin_dir(char *buf, size_t size, uint64_t vm_id);
void pin_path(char *buf, size_t size, uint64_t vm_id, const char *leaf);
int pin_open_link(uint64_t vm_id, struct link_state *link);
int link_read(int fd, struct link_state *link);
bool pin_exists(uint64_t vm_id, const char *leaf);
bool pin_empty(uint64_t vm_id);
unsigned int pin_remove(uint64_t vm_id);
void pin_remove_link(uint64_t vm_id);
size_t pin_list(uint64_t **ids);

/* policy.c: an object file, through libbpf */
struct bpf_object;
struct bpf_map;

struct policy {
	const char *path;
	struct bpf_object *obj;
	struct bpf_map *map;
	uint32_t map_id;
	char name[KPOP_NAME_LEN];
};

int policy_open(struct policy *p, const char *path);
int policy_load(struct policy *p, int vm_fd, const char *pin_root);
int policy_refused(struct policy *p, int err);
int policy_wait(const struct policy *p, struct vm *vm, int link_fd, unsigned int timeout);
void policy_close(struct policy *p);

/* knob.c */
int policy_set_knobs(const struct policy *p, const struct args *args);

/* kernel_btf.c: what an attached policy map consists of */
int put_programs(struct json_object *array, uint32_t map_id);

/* commands */
int cmd_list(const struct args *args, struct json_object *out);
void show_list(struct json_object *out);
int cmd_attach(const struct args *args, struct json_object *out);
void show_attach(struct json_object *out);
int cmd_swap(const struct args *args, struct json_object *out);
void show_swap(struct json_object *out);
int cmd_detach(const struct args *args, struct json_object *out);
void show_detach(struct json_object *out);
int cmd_status(const struct args *args, struct json_object *out);
void show_status(struct json_object *out);
int cmd_set(const struct args *args, struct json_object *out);
void show_set(struct json_object *out);

#endif /* KPOPCTL_H */
