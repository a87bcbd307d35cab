//! XML as the Query API answers it: elements that hold texts or elements, in the namespace of the service.

use super::error::Fault;

/// A service that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// ElastiCache.
    ElastiCache,
    /// The Security Token Service, of which clients ask who they are.
    Sts,
}

impl Service {
    fn namespace(self) -> &'static str {
        match self {
            Self::ElastiCache => "http://elasticache.amazonaws.com/doc/2015-02-02/",
            Self::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
        }
    }
}

/// Elements, one after another.
#[derive(Debug, Default)]
pub struct Writer {
    text: String,
}

impl Writer {
    /// An element that holds what `inside` writes.
    pub fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.tag("<", name);
        inside(self);
        self.tag("</", name);
    }

    /// An element with a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.element(name, |writer| escape(value, &mut writer.text));
    }

    /// An element with a text, when there is one.
    pub fn some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// An element with a number.
    pub fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.text(name, &value.into().to_string());
    }

    /// An element with a truth.
    pub fn flag(&mut self, name: &str, value: bool) {
        self.text(name, if value { "true" } else { "false" });
    }

    /// A list: `name` around an `element` for each item.
    pub fn list<T>(&mut self, name: &str, element: &str, items: &[T], mut one: impl FnMut(&mut Self, &T)) {
        self.element(name, |writer| {
            items.iter().for_each(|item| writer.element(element, |writer| one(writer, item)));
        });
    }

    fn tag(&mut self, open: &str, name: &str) {
        self.text.push_str(open);
        self.text.push_str(name);
        self.text.push('>');
    }

    fn root(mut self, name: &str, service: Service, inside: impl FnOnce(&mut Self)) -> String {
        self.text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.tag("<", &format!("{name} xmlns=\"{}\"", service.namespace()));
        inside(&mut self);
        self.tag("</", name);
        self.text.push('\n');
        self.text
    }
}

/// The document of a request that was carried out, with what is inside of its `…Result`.
#[must_use]
pub fn success(service: Service, action: &str, request_id: &str, result: &Writer) -> String {
    Writer::default().root(&format!("{action}Response"), service, |writer| {
        writer.element(&format!("{action}Result"), |writer| writer.text.push_str(&result.text));
        writer.element("ResponseMetadata", |writer| writer.text("RequestId", request_id));
    })
}

/// The document of a request that was not.
#[must_use]
pub fn failure(service: Service, fault: &Fault, request_id: &str) -> String {
    let (code, status) = fault.code.row();
    Writer::default().root("ErrorResponse", service, |writer| {
        writer.element("Error", |writer| {
            writer.text("Type", if status < 500 { "Sender" } else { "Receiver" });
            writer.text("Code", code);
            writer.text("Message", &fault.message);
        });
        writer.text("RequestId", request_id);
    })
}

/// What XML 1.0 has no way to write becomes U+FFFD.
fn escape(value: &str, into: &mut String) {
    for letter in value.chars() {
        match letter {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            // a parser would make a line feed of it
            '\r' => into.push_str("&#13;"),
            '\t' | '\n' => into.push(letter),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => into.push('\u{fffd}'),
            _ => into.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::query::error::Code;

    #[test]
    fn documents_have_the_envelope_of_aws() {
        let mut result = Writer::default();
        let writer = &mut result;
        {
            writer.list("Xs", "X", &["a", "<&>\r\u{1}\u{fffe}"], |writer, item| writer.text("Name", item));
            writer.list("Ys", "Y", &[] as &[&str], |writer, item| writer.text("Name", item));
            writer.flag("Is", true);
            writer.number("Count", 3_u32);
            writer.some("None", None);
        }
        let text = success(Service::ElastiCache, "DescribeX", "id-1", &result);
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <DescribeXResponse xmlns=\"http://elasticache.amazonaws.com/doc/2015-02-02/\"><DescribeXResult>\
             <Xs><X><Name>a</Name></X><X><Name>&lt;&amp;&gt;&#13;\u{fffd}\u{fffd}</Name></X></Xs><Ys></Ys>\
             <Is>true</Is><Count>3</Count></DescribeXResult><ResponseMetadata><RequestId>id-1</RequestId>\
             </ResponseMetadata></DescribeXResponse>\n"
        );
        let fault = Fault::new(Code::SnapshotNotFound, "Snapshot s not found.");
        assert_eq!(
            failure(Service::ElastiCache, &fault, "id-2"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ErrorResponse xmlns=\"http://elasticache.amazonaws.com/doc/2015-02-02/\"><Error><Type>Sender</Type>\
             <Code>SnapshotNotFoundFault</Code><Message>Snapshot s not found.</Message></Error><RequestId>id-2</RequestId>\
             </ErrorResponse>\n"
        );
        assert!(failure(Service::Sts, &Fault::new(Code::InternalFailure, ""), "").contains("<Type>Receiver</Type>"));
    }
}
