//! x
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(
    _args: Args,
    _global: &crate::cli::Global,
    _output: &mut crate::output::Output,
) -> Result<(), crate::exit::Failure> {
    Ok(())
}
