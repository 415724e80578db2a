//! One suite for every storage engine: what [`catena_chainnode::engine::Engine`] promises, each promise tried on each of them.
//!
//! - `model`: random batches, merges, wipes and reopenings beside plain maps;
//! - `views`: what a reader sees while a writer writes;
//! - `pages`: limits, directions and odd ranges;
//! - `crash`: what a folder holds after a crash, and after a bit of it flipped.

#![allow(
    clippy::disallowed_methods,
    reason = "the suite copies folders and runs writers beside readers"
)]
#![allow(
    clippy::print_stdout,
    reason = "a writer that is to be killed tells its parent how far it has come"
)]

mod crash;
mod folder;
mod model;
mod pages;
mod views;

/// Runs each test on each engine: `fjall::model::…`, `sled::model::…`, `memory::model::…`.
macro_rules! conforms {
    ($($module:ident: $($test:ident),+;)+) => {
        conforms!(@engine fjall Fjall $($module: $($test),+;)+);
        conforms!(@engine sled Sled $($module: $($test),+;)+);
        conforms!(@engine memory Memory $($module: $($test),+;)+);
    };
    (@engine $name:ident $kind:ident $($module:ident: $($test:ident),+;)+) => {
        mod $name {
            $(mod $module {
                $(#[test]
                fn $test() {
                    crate::$module::$test(catena_chainnode::engine::EngineKind::$kind);
                })+
            })+
        }
    };
}

conforms! {
    model: any_history_reads_like_the_model;
    pages: limits_cut_pages_and_say_so, odd_ranges_are_empty, a_long_range_is_wiped_and_its_neighbours_stay;
    views: a_view_stays_as_it_was, rows_and_progress_are_of_one_moment;
    crash: a_flushed_folder_keeps_everything,
        a_crash_keeps_a_prefix_that_fits_its_progress,
        a_killed_process_keeps_a_prefix,
        a_torn_file_keeps_a_prefix_or_does_not_open,
        a_flipped_bit_is_never_read,
        a_hurt_list_of_tables_is_refused,
        a_folder_has_one_user;
}

#[test]
#[ignore = "not a test: the process that the crash tests start and kill"]
fn write_until_killed() {
    crash::write_until_killed();
}
