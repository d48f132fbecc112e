//! `cube list TYPE`, and the lists of `cube get` and `cube nodes`.

use clap::Args as ClapArgs;
use cube_api::client::{Client, ClientError, Revised, Watch};
use cube_api::config::Config;
use cube_api::meta::{ResourceKind, ResourceRef, Revision};
use cube_api::node::Node;
use cube_api::object::ObjectType;
use cube_api::pod::Pod;
use cube_api::routes::{List, ListQuery, WatchEvent};
use cube_api::secret::Secret;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::output::object::Shown;
use crate::output::style::Style;
use crate::output::table::Table;
use crate::output::{self, Format, Typed, TypedList, print};
use crate::wait::is_expired;

/// The words of `cube list`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cube list pod                     name, ready, status, restarts, age
  cube list pod -l app=web -o wide  those with a label; also address, node and images
  cube list pod -w                  go on with every change")]
pub struct Args {
    /// pod, node, secret, config
    #[arg(value_name = "TYPE")]
    kind: ResourceKind,
    #[command(flatten)]
    options: Options,
}

/// How a list is shown.
#[derive(Debug, ClapArgs)]
pub struct Options {
    /// Only those with these labels: app=web,tier!=db
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Go on with every change, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// Lists a type.
pub async fn run(args: Args, client: &Client) -> Result<()> {
    all(args.kind, &args.options, client).await
}

/// Lists everything of a type.
pub async fn all(kind: ResourceKind, options: &Options, client: &Client) -> Result<()> {
    match kind {
        ResourceKind::Pod => show::<Pod>(options, client).await,
        ResourceKind::Node => show::<Node>(options, client).await,
        ResourceKind::Secret => show::<Secret>(options, client).await,
        ResourceKind::Config => show::<Config>(options, client).await,
    }
}

/// What a type needs to be listed: it is fetched, watched and made into rows.
trait Listed: Revised + Serialize + DeserializeOwned {
    const KIND: ResourceKind;
    async fn fetch(client: &Client, query: &ListQuery) -> std::result::Result<List<Self>, ClientError>;
    async fn watch(client: &Client, selector: Option<String>, from: Revision) -> std::result::Result<Watch<Self>, ClientError>;
    fn table(items: &[Self], wide: bool, now: Timestamp) -> Table;
    fn reference(&self) -> ResourceRef;
}

impl Listed for Pod {
    const KIND: ResourceKind = ResourceKind::Pod;
    async fn fetch(client: &Client, query: &ListQuery) -> std::result::Result<List<Self>, ClientError> {
        client.pods(query).await
    }
    async fn watch(client: &Client, selector: Option<String>, from: Revision) -> std::result::Result<Watch<Self>, ClientError> {
        client.watch_pods(selector, from).await
    }
    fn table(items: &[Self], wide: bool, now: Timestamp) -> Table {
        output::pod::table(items, wide, now)
    }
    fn reference(&self) -> ResourceRef {
        output::pod::reference(self)
    }
}

impl Listed for Node {
    const KIND: ResourceKind = ResourceKind::Node;
    async fn fetch(client: &Client, query: &ListQuery) -> std::result::Result<List<Self>, ClientError> {
        client.nodes(query).await
    }
    async fn watch(client: &Client, selector: Option<String>, from: Revision) -> std::result::Result<Watch<Self>, ClientError> {
        client.watch_nodes(selector, from).await
    }
    fn table(items: &[Self], wide: bool, now: Timestamp) -> Table {
        output::node::table(items, wide, now)
    }
    fn reference(&self) -> ResourceRef {
        output::node::reference(self)
    }
}

impl<T: Shown> Listed for T {
    const KIND: ResourceKind = <T as ObjectType>::KIND;
    async fn fetch(client: &Client, query: &ListQuery) -> std::result::Result<List<Self>, ClientError> {
        client.objects(query).await
    }
    async fn watch(client: &Client, selector: Option<String>, from: Revision) -> std::result::Result<Watch<Self>, ClientError> {
        client.watch_objects(selector, from).await
    }
    fn table(items: &[Self], wide: bool, now: Timestamp) -> Table {
        T::rows(items, wide, now)
    }
    fn reference(&self) -> ResourceRef {
        output::object::reference(self)
    }
}

async fn show<T: Listed>(options: &Options, client: &Client) -> Result<()> {
    let query = ListQuery { selector: options.selector.clone(), ..ListQuery::default() };
    let list = T::fetch(client, &query).await?;
    print(&list_text(&list, options))?;
    if list.items.is_empty() && options.output.is_none_or(|format| format == Format::Wide) {
        eprintln!("no {}s found", T::KIND);
    }
    if !options.watch {
        return Ok(());
    }
    let widths = T::table(&list.items, options.output == Some(Format::Wide), Timestamp::now()).widths();
    let mut watch = T::watch(client, options.selector.clone(), list.revision).await?;
    loop {
        match watch.next().await {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) => {
                print(&change_text(&[object], options, &widths))?;
            }
            Ok(WatchEvent::Bookmark(_)) => {}
            Err(error) if is_expired(&error) => {
                let list = T::fetch(client, &query).await?;
                print(&change_text(&list.items, options, &widths))?;
                watch = T::watch(client, options.selector.clone(), list.revision).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn list_text<T: Listed>(list: &List<T>, options: &Options) -> String {
    let typed = TypedList::new(T::KIND, list.revision, &list.items);
    match options.output {
        Some(Format::Json) => output::json(&typed),
        Some(Format::Yaml) => output::yaml(&typed),
        Some(Format::Name) => output::names(list.items.iter().map(T::reference)),
        None | Some(Format::Wide) if list.items.is_empty() && !options.watch => String::new(),
        None | Some(Format::Wide) => T::table(&list.items, options.output.is_some(), Timestamp::now()).text(Style::of_stdout()),
    }
}

/// What changed, below what was printed before: rows in the same columns, or an object each.
fn change_text<T: Listed>(items: &[T], options: &Options, widths: &[usize]) -> String {
    match options.output {
        Some(Format::Json) => items.iter().map(|object| output::json(&Typed::new(T::KIND, object))).collect(),
        Some(Format::Yaml) => items.iter().map(|object| format!("---\n{}", output::yaml(&Typed::new(T::KIND, object)))).collect(),
        Some(Format::Name) => output::names(items.iter().map(T::reference)),
        None | Some(Format::Wide) => T::table(items, options.output.is_some(), Timestamp::now()).rows_text(widths, Style::of_stdout()),
    }
}
