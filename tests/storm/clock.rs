//! A clock that can be set, for the processes that are started with it: a library that stands before the
//! system's, and adds to the time of day what a file says. What runs on (`CLOCK_MONOTONIC`) it leaves alone,
//! as whoever sets a machine's clock does.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_AHEAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) ahead = at;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int outcome = (int)syscall(SYS_clock_gettime, clock, time);
    if (outcome == 0 && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *ahead;
    return outcome;
}
"#;

pub(crate) struct Clock {
    library: PathBuf,
    ahead: PathBuf,
}

impl Clock {
    /// One in this folder; none where there is no compiler.
    pub(crate) fn build(folder: &Path) -> Option<Self> {
        let [source, library, ahead] =
            ["clock.c", "clock.so", "clock.ahead"].map(|it| folder.join(it));
        std::fs::write(&source, SOURCE).unwrap();
        std::fs::write(&ahead, [0; 8]).unwrap();
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]);
        let status = command.arg(&library).arg(&source).status().ok()?;
        status.success().then_some(Self { library, ahead })
    }

    /// What the environment of a process needs.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("CLOCK_AHEAD", self.ahead.display().to_string()),
        ]
    }

    /// Sets it so many seconds ahead of the true one, or behind it.
    pub(crate) fn set(&self, ahead: i64) {
        let file = std::fs::File::options().write(true).open(&self.ahead);
        file.unwrap().write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }
}
