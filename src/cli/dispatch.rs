//! From the command line to what carries it out, and from the outcome to the exit code.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap_complete::Shell;
use crossbeam_channel::Receiver;
use serde_json::{Value, json};

use crate::cli::arguments::{
    self, Action, Arguments, FleetAction, HistoryAction, ListsAction, ReleaseAction, RolloutAction,
    ServiceAsked, ShellName, VerbFlags, VerdictAction,
};
use crate::cli::asked::AskedRequest;
use crate::cli::exit::Exit;
use crate::cli::report::{self, Form, Report};
use crate::cli::{
    accept, check, config, demo, explain, fleet, fleet_wait, history, lists, lists_check,
    lists_diff, manual, notify, peers, promote, reload, rollout, status, upgrade, verbs, verdict,
    waiting,
};
use crate::release::change::{RolloutPlan, RolloutVerb, Verb, share};
use crate::{process, run};

/// Reads the command line of this process, and does what it says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // It says where: help that was asked for is no complaint.
            let _ = error.print();
            return match error.use_stderr() {
                true => Exit::Usage,
                false => Exit::Done,
            }
            .into();
        }
    };
    if let Some(Action::Run {
        supervise: true,
        config,
    }) = &arguments.action
    {
        return supervise(config);
    }
    let (form, outcome) = perform(arguments);
    report::tell(form, outcome).into()
}

/// Ends as the process that served.
fn supervise(path: &Path) -> ExitCode {
    match run::supervise(path) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report::tell(Form::Text, Err(error)).into(),
    }
}

/// Does it; says in which form the answer is wanted.
fn perform(arguments: Arguments) -> (Form, Result<Report, String>) {
    let Some(action) = arguments.action else {
        let outcome = match arguments.test {
            true => test(&arguments.config),
            false => Err(
                "nothing to do: `graygate run -c FILE`, `graygate -t -c FILE`, or --help".into(),
            ),
        };
        return (arguments.output.form(), outcome);
    };
    match action {
        Action::Run { config, .. } => silent(serve(&config)),
        Action::Demo { listen } => silent(act(|commands| demo::demo(listen, commands))),
        Action::Origin { listen, name } => {
            silent(act(|commands| demo::origin(listen, &name, commands)))
        }
        Action::Completions { shell } => (Form::Text, Ok(completions(shell))),
        Action::Man { out } => (Form::Text, man(out.as_deref())),
        Action::Reload { output, config } => (output.form(), reload::reload(&config)),
        Action::Upgrade {
            program,
            output,
            config,
        } => {
            let outcome = upgrade::upgrade(&config, program.as_deref());
            (output.form(), outcome)
        }
        Action::Leave { output, config } => (output.form(), upgrade::leave(&config)),
        Action::Status {
            strict,
            output,
            config,
        } => (output.form(), status::ask(&config, strict)),
        Action::Lists { action } => on_lists(action),
        Action::Explain { asked, output, of } => {
            let explained =
                |it: AskedRequest| explain::explain(&of.config, &it.question(), of.whom());
            (output.form(), asked.request().and_then(explained))
        }
        Action::Config {
            file,
            output,
            config,
        } => {
            let outcome = match file {
                true => config::of_file(&config),
                false => config::in_force(&config),
            };
            (output.form(), outcome)
        }
        Action::Verdict {
            action: None,
            of_service: ServiceAsked { service },
            output,
            config,
        } => {
            let outcome = verdict::show(&config, service.as_deref());
            (output.form(), outcome)
        }
        Action::Verdict {
            action: Some(action),
            ..
        } => on_verdict(action),
        Action::Peers {
            of_service: ServiceAsked { service },
            output,
            config,
        } => (output.form(), peers::show(&config, service.as_deref())),
        Action::Fleet {
            action,
            output,
            config,
        } => match action {
            None => (output.form(), fleet::list(&config)),
            Some(action) => on_fleet(action),
        },
        Action::Release(action) => on_release(action),
    }
}

/// The verbs of a release, and what they have done.
fn on_release(action: ReleaseAction) -> (Form, Result<Report, String>) {
    let perform = |flags: VerbFlags, verb: Verb| {
        let outcome = verbs::perform(&flags, verb);
        (flags.output.form(), outcome)
    };
    match action {
        ReleaseAction::Admit { entries, flags } => perform(flags, Verb::Admit(entries)),
        ReleaseAction::Remove { entries, flags } => perform(flags, Verb::Remove(entries)),
        ReleaseAction::Stage {
            share: text,
            by,
            flags,
        } => match share(&text) {
            Ok(share) => perform(flags, Verb::Stage(share, by.key())),
            Err(why) => (flags.output.form(), Err(format!("{text:?}: {why}"))),
        },
        ReleaseAction::Promote { swap, force, flags } => {
            let outcome = promote::promote(&flags, swap, force);
            (flags.output.form(), outcome)
        }
        ReleaseAction::Rollback { to, flags } => perform(flags, Verb::Rollback(to)),
        ReleaseAction::Rollout { action } => on_rollout(action),
        ReleaseAction::Undo { flags } => perform(flags, Verb::Undo),
        ReleaseAction::Freeze { flags } => perform(flags, Verb::Freeze),
        ReleaseAction::Thaw { flags } => perform(flags, Verb::Thaw),
        ReleaseAction::History {
            action: None,
            last,
            service,
            output,
            config,
        } => {
            let shown = history::list(&config, service.as_deref(), last.get());
            (output.form(), shown)
        }
        ReleaseAction::History {
            action:
                Some(HistoryAction::Show {
                    number,
                    service,
                    output,
                    config,
                }),
            ..
        } => {
            let shown = history::show(&config, service.as_deref(), number);
            (output.form(), shown)
        }
    }
}

fn on_rollout(action: RolloutAction) -> (Form, Result<Report, String>) {
    let perform = |flags: VerbFlags, verb: RolloutVerb| {
        let outcome = verbs::perform(&flags, Verb::Rollout(verb));
        (flags.output.form(), outcome)
    };
    match action {
        RolloutAction::Start {
            steps,
            every,
            promote,
            without_verdict,
            by,
            flags,
        } => {
            let plan = rollout::plan(&steps, every, by.key());
            let plan = plan.map(|it| RolloutPlan {
                promotes: promote,
                without_verdict,
                ..it
            });
            let outcome = plan.and_then(|it| rollout::start(&flags, it));
            (flags.output.form(), outcome)
        }
        RolloutAction::Status {
            service,
            output,
            config,
        } => (output.form(), rollout::status(&config, service.as_deref())),
        RolloutAction::Pause { flags } => perform(flags, RolloutVerb::Pause),
        RolloutAction::Resume { flags } => perform(flags, RolloutVerb::Resume),
        RolloutAction::Abort { flags } => perform(flags, RolloutVerb::Abort),
    }
}

/// What has no answer but its end.
fn silent(outcome: Result<(), String>) -> (Form, Result<Report, String>) {
    let nothing = |()| Report::new(String::new(), Value::Null);
    (Form::Text, outcome.map(nothing))
}

fn on_verdict(action: VerdictAction) -> (Form, Result<Report, String>) {
    match action {
        VerdictAction::Reset { flags } => {
            (flags.output.form(), verbs::perform(&flags, Verb::Reset))
        }
        VerdictAction::Notify {
            test: _,
            output,
            config,
        } => (output.form(), notify::test(&config, &verbs::whoever())),
    }
}

fn on_fleet(action: FleetAction) -> (Form, Result<Report, String>) {
    let FleetAction::Wait {
        digest,
        timeout,
        nodes,
        output,
        config,
    } = action;
    let outcome = fleet_wait::wait(&config, &digest, timeout, nodes);
    (output.form(), outcome)
}

fn on_lists(action: ListsAction) -> (Form, Result<Report, String>) {
    match action {
        ListsAction::Show {
            of_service: ServiceAsked { service },
            output,
            of,
        } => {
            let shown = lists::show(&of.config, service.as_deref(), of.whom());
            (output.form(), shown)
        }
        ListsAction::Diff {
            of_service: ServiceAsked { service },
            output,
            config,
        } => {
            let difference = lists_diff::diff(&config, service.as_deref());
            (output.form(), difference)
        }
        ListsAction::Accept {
            digest,
            output,
            config,
        } => (output.form(), accept::accept(&config, &digest)),
        ListsAction::Check {
            file,
            of_service: ServiceAsked { service },
            output,
            config,
        } => {
            let checked = lists_check::check(file.as_deref(), &config, service.as_deref());
            (output.form(), checked)
        }
    }
}

fn serve(path: &Path) -> Result<(), String> {
    let commands = process::commands().map_err(|error| format!("signals: {error}"))?;
    run::run_file(path, &commands)
}

fn act(action: impl FnOnce(&Receiver<process::Command>) -> io::Result<()>) -> Result<(), String> {
    let commands = process::commands().map_err(|error| format!("signals: {error}"))?;
    action(&commands).map_err(|error| error.to_string())
}

fn test(path: &Path) -> Result<Report, String> {
    let startup = process::Startup::begin().map_err(|error| error.to_string())?;
    startup.at(format!("checking {}, and what it names", path.display()));
    let (config, warnings) = check::check(path)?;
    startup.at("asking the gateway that runs with this file".to_owned());
    let waiting = waiting::keys(&config);
    let file = path.display().to_string();
    let good = format!(
        "{file}: the configuration is good{}",
        check::services(&config)
    );
    let text = match waiting.as_deref() {
        None | Some([]) => format!("{good}\n"),
        Some(keys) => {
            let keys = keys.join(", ");
            format!("{good}; in the gateway that runs, only a restart changes {keys}\n")
        }
    };
    let json = json!({
        "file": file,
        "good": true,
        "services": config.services.len(),
        "warnings": warnings,
        "after_restart": waiting,
    });
    let notes = warnings.iter().map(|it| format!("warning: {it}"));
    Ok(Report::new(text, json).noting(notes.collect()))
}

fn completions(shell: ShellName) -> Report {
    let shell = match shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut arguments::command(), "graygate", &mut text);
    Report::new(String::from_utf8_lossy(&text).into_owned(), Value::Null)
}

fn man(out: Option<&Path>) -> Result<Report, String> {
    let text = match out {
        None => manual::main_page().map_err(|error| error.to_string())?,
        Some(folder) => {
            let written = manual::write(folder)?;
            let shown = written.iter().map(|it| format!("{}\n", it.display()));
            shown.collect()
        }
    };
    Ok(Report::new(text, Value::Null))
}
