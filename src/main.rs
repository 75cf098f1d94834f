//! The program: all of it is in the library.

use std::process::ExitCode;

use graygate::{cli, memory::advice};

fn main() -> ExitCode {
    advice::return_large_blocks();
    cli::main()
}
