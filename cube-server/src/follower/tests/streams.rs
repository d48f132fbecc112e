//! Logs and exec.

use super::*;

#[tokio::test(start_paused = true)]
async fn logs_of_one_container_come_as_they_are_and_follow_goes_over_restarts() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { output: vec!["hello".to_owned()], ..Script::default() });
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let query = cube_api::routes::LogQuery { container: Some(name("app")), follow: true, ..Default::default() };
    let follow = bench.agent.logs(web.uid, query).await.unwrap();
    let frames = tokio::spawn(follow.collect::<Vec<_>>());
    let live = bench.apps(web.uid)[0].id.clone();
    crate::follower::runtime::Runtime::signal(&bench.fake, &live, StopSignal::Kill).await.unwrap();
    bench.wait_for("a second start", || bench.fake.starts(web.uid, Some(&name("app"))) == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let all = bench.agent.logs(web.uid, Default::default()).await.unwrap().collect::<Vec<_>>().await;
    bench.assign(&[stop(&web)]).await;
    let text = |frames: &[cube_api::stream::Frame]| {
        let bytes = frames.iter().flat_map(|frame| match frame {
            cube_api::stream::Frame::Stdout(bytes) => bytes.to_vec(),
            _ => Vec::new(),
        });
        String::from_utf8(bytes.collect()).unwrap()
    };
    assert_eq!(text(&all), "[app] hello\n");
    let frames = frames.await.unwrap();
    assert_eq!(text(&frames), "hello\nhello\n");
    assert_eq!(frames.last(), Some(&cube_api::stream::Frame::Status(cube_api::stream::Outcome::Success)));
}

#[tokio::test(start_paused = true)]
async fn followed_logs_of_several_containers_come_with_their_names_over_restarts() {
    let bench = Bench::new().await;
    bench.fake.script("app", Script { output: vec!["hello".to_owned()], ..Script::default() });
    bench.fake.script("side", Script { output: vec!["hi".to_owned()], ..Script::default() });
    let mut web = pod(1, RestartPolicy::Always);
    let mut side = web.spec.containers[0].clone();
    (side.name, side.image) = (name("side"), "side".to_owned());
    web.spec.containers.push(side);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let query = cube_api::routes::LogQuery { follow: true, ..Default::default() };
    let follow = bench.agent.logs(web.uid, query).await.unwrap();
    let frames = tokio::spawn(follow.collect::<Vec<_>>());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let side = bench.apps(web.uid).into_iter().find(|seen| seen.identity.container == Some(name("side"))).unwrap();
    bench.fake.kill_by_hand(&side.id);
    bench.wait_for("a second start", || bench.fake.starts(web.uid, Some(&name("side"))) == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.assign(&[stop(&web)]).await;
    let frames = frames.await.unwrap();
    let text = frames.iter().map(|frame| match frame {
        cube_api::stream::Frame::Stdout(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => format!("{other:?}"),
    });
    let text: String = text.collect();
    // Which of the first two came first is up to the engine's clock.
    let mut lines: Vec<_> = text.lines().collect();
    lines[..2].sort_unstable();
    assert_eq!(lines, ["[app] hello", "[side] hi", "[side] hi", "Status(Success)"]);
}

#[tokio::test(start_paused = true)]
async fn exec_tells_the_exact_exit_code_and_names_what_is_wrong() {
    use cube_api::stream::{Frame, Outcome};
    let bench = Bench::new().await;
    let web = pod(1, RestartPolicy::Always);
    bench.assign(std::slice::from_ref(&web)).await;
    bench.phase(web.uid, Phase::Running).await;
    let query = |words: &[&str]| cube_api::routes::ExecQuery {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        ..Default::default()
    };
    for (words, outcome) in [(&["true"][..], Outcome::Success), (&["sh", "-c", "exit 7"][..], Outcome::ExitCode(7))] {
        let mut exec = bench.agent.exec(web.uid, query(words)).await.unwrap();
        assert_eq!(exec.output.recv().await, Some(Frame::Status(outcome)));
    }
    let exec = bench.agent.exec(web.uid, query(&["sleep", "3600"])).await.unwrap();
    drop(exec);
    bench.wait_for("the process to be killed", || bench.fake.live_execs() == 0).await;
    let wrong = cube_api::routes::ExecQuery { container: Some(name("db")), ..query(&["true"]) };
    let error = bench.agent.exec(web.uid, wrong).await.err().unwrap();
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::NotFound, Some("its containers are: app")));
}
