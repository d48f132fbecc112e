//! What the node agent may expect of a container runtime: the same cases on the scripted one and on Docker, then what only Docker can show.

mod docker;
mod hang_up;
mod rig;
mod shared;
mod spares;
mod wire;

/// Makes each of the shared cases a test on each engine, so that a failure names both.
macro_rules! on_both_engines {
    ($($file:ident: $($case:ident),* ;)*) => {
        mod on_the_fake {
            $($(#[tokio::test]
            async fn $case() {
                super::$file::$case(super::rig::Rig::fake()).await;
            })*)*
        }
        mod on_docker {
            $($(#[tokio::test]
            async fn $case() {
                super::$file::$case(super::rig::Rig::docker()).await;
            })*)*
        }
    };
}

on_both_engines! {
    shared:
    a_repeated_create_finds_what_it_made,
    a_container_that_was_never_started_is_created_and_not_a_success,
    a_container_tells_its_exit_code,
    a_repeated_start_is_fine,
    a_restarted_sandbox_has_another_identity,
    a_container_does_not_start_in_a_sandbox_that_does_not_run,
    stop_ends_what_listens_and_kill_ends_what_does_not,
    removing_twice_is_fine_and_a_gone_container_is_none,
    a_missing_image_is_none_and_its_container_an_image_error,
    a_missing_program_is_refused_and_its_container_says_why,
    a_memory_limit_is_told,
    logs_come_in_order_by_tail_and_since,
    a_followed_log_ends_with_its_container,
    two_nodes_on_one_engine_do_not_see_each_other,
    a_host_port_is_free_until_something_has_it_on_that_address_and_protocol,
    one_port_of_two_addresses_and_protocols_is_published_three_times,
    a_taken_host_port_is_refused,
    a_foreign_container_with_our_name_is_left_alone_and_named,
    an_end_is_hinted,
    an_exec_tells_its_exit_code,
    the_end_of_input_ends_cat,
    a_missing_exec_program_fails;

    spares:
    a_spare_is_no_pods_until_one_takes_it_and_then_that_pods_sandbox,
    a_spare_that_a_pod_has_is_no_other_pods,
    a_spare_that_is_gone_or_does_not_run_or_whose_name_is_taken_is_refused,
    a_nodes_spares_are_its_own,
    the_end_of_a_sandbox_that_was_a_spare_is_hinted;

    hang_up:
    a_create_whose_caller_hung_up_is_carried_out,
    a_start_whose_caller_hung_up_is_carried_out,
    a_kill_whose_caller_hung_up_is_carried_out,
    a_claim_whose_caller_hung_up_is_carried_out,
    a_removal_whose_caller_hung_up_is_carried_out;
}
