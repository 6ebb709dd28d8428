//! What a request costs a real Envoy, with trusted-lb and with what it replaces: `./build.sh bench`.
//!
//! Two measures of the same variants: processor time, which is what users pay and varies with the machine ([`cpu`]), and
//! instructions, which are the same on every machine ([`instructions`]).

// A bench ends where something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod budgets;
mod cpu;
mod floor;
mod instructions;
mod load;
mod options;
mod picture;
mod variants;

use options::Options;

fn main() {
    let options = Options::from_command_line();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let variants = variants::chosen(&options, budgets::variants(), folder.path());
    if options.instructions {
        let counts = instructions::count(&variants, &options);
        instructions::print_table(&counts);
        picture::write_if_wanted(&options, || picture::of_instructions(&counts));
        if options.budgets && !budgets::hold(&counts) {
            std::process::exit(1);
        }
    } else {
        let costs = cpu::measure(&variants, &options);
        cpu::print_table(&costs);
        picture::write_if_wanted(&options, || picture::of_time(&costs, options.rounds));
    }
}
