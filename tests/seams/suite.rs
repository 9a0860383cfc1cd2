//! Makes a suite: the same cases as tests for each implementation.

/// Makes one `#[test]` for each case of a suite: `suite!(log_suite, MyFixture::new, [a_case, another_case])`. A case is a
/// function of the suite's module that takes a fresh fixture.
macro_rules! suite {
    ($suite:ident, $make:expr, [$($case:ident),* $(,)?]) => {
        $(
            #[test]
            fn $case() {
                crate::$suite::$case(&$make());
            }
        )*
    };
}
