//! What `#[tcc]`, `#[three_phase]` and `#[saga_step]` refuse, and in which words. After a wanted
//! change of a message run with `TRYBUILD=overwrite`.

#[test]
fn refusals_point_at_what_is_wrong() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
