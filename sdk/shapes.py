"""Writes the shapes that the SDKs share with the gateway, from the document of its API.

    python3 sdk/shapes.py           writes them anew
    python3 sdk/shapes.py --check   says whether they are what the document says

Only what a caller meets is written: ROOTS, and what they are made of.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "openapi.json"
TYPESCRIPT = HERE / "typescript" / "src" / "shapes.ts"
PYTHON = HERE / "python" / "src" / "onceward" / "shapes.py"
RUST = HERE.parent / "crates" / "onceward-client" / "src" / "shapes.rs"

ROOTS = ["Problem", "OperationStory", "Answer", "Begin", "Complete", "Release", "Renew", "Claim"]

ABOUT = "What the gateway says and is told, made by `sdk/shapes.py` of the document of its API."

#: What a line of ours has at most.
WIDTH = 100


def name_of(reference):
    return reference.rsplit("/", 1)[1]


def reached(schemas, roots=ROOTS):
    """The schemas that the roots are made of, each after those that it is made of."""
    order, seen = [], set()

    def visit(name):
        if name in seen:
            return
        seen.add(name)
        for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(schemas[name])):
            visit(name_of(reference))
        order.append(name)

    for root in roots:
        visit(root)
    return order


def is_rule(schema):
    """Whether it only narrows what another part says."""
    return set(schema) <= {"not"}


def parts_of(schema):
    """What an object is made of: those that it extends, and its own members."""
    bases, own = [], dict(schema.get("properties", {}))
    required = set(schema.get("required", []))
    for part in schema.get("allOf", []):
        if "$ref" in part:
            bases.append(name_of(part["$ref"]))
        elif not is_rule(part):
            own.update(part.get("properties", {}))
            required |= set(part.get("required", []))
    return bases, own, required


def is_object(schema):
    return "properties" in schema or "allOf" in schema


def kinds(schema):
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else kind


class Typescript:
    nothing, text, number, truth, anything = "null", "string", "number", "boolean", "unknown"
    fraction = number

    def literal(self, value):
        return json.dumps(value)

    def either(self, choices):
        return " | ".join(dict.fromkeys(choices))

    def literals(self, values):
        return self.either(self.literal(value) for value in values)

    def many(self, of):
        return f"Array<{of}>" if " " in of else f"{of}[]"

    def map(self, of):
        return f"Record<string, {of}>"

    def within(self, path, schema, writer):
        return writer.object(schema, indent=path)


class Python:
    nothing, text, number, truth, anything = "None", "str", "int", "bool", "Any"
    fraction = "float"

    def literal(self, value):
        return "None" if value is None else json.dumps(value)

    def either(self, choices):
        return " | ".join(dict.fromkeys(choices))

    def literals(self, values):
        said = ", ".join(self.literal(value) for value in values if value is not None)
        return f"Literal[{said}]" + (" | None" if None in values else "")

    def many(self, of):
        return f"list[{of}]"

    def map(self, of):
        return f"dict[str, {of}]"


class Writer:
    """Writes types of one language; objects within objects get a name of their own."""

    def __init__(self, language, schemas):
        self.language, self.schemas, self.blocks = language, schemas, []

    def type(self, schema, place):
        say = self.language
        if "$ref" in schema:
            return name_of(schema["$ref"])
        if "const" in schema:
            return say.literals([schema["const"]])
        if "enum" in schema:
            return say.literals(schema["enum"])
        if "anyOf" in schema:
            return say.either(self.type(one, place) for one in schema["anyOf"])
        found = []
        for kind in kinds(schema):
            if kind == "null":
                found.append(say.nothing)
            elif kind == "string":
                found.append(say.text)
            elif kind == "integer":
                found.append(say.number)
            elif kind == "number":
                found.append(say.fraction)
            elif kind == "boolean":
                found.append(say.truth)
            elif kind == "array":
                found.append(say.many(self.type(schema.get("items", {}), place)))
            elif "properties" in schema:
                self.write(place, {**schema, "type": "object"})
                found.append(place)
            else:
                more = schema.get("additionalProperties")
                found.append(say.map(self.type(more, place) if isinstance(more, dict) else say.anything))
        return say.either(found) if found else say.anything

    def write(self, name, schema):
        members = []
        bases, own, required = parts_of(schema) if is_object(schema) else ([], None, set())
        if own is not None:
            for member, said in own.items():
                place = name + "".join(word.title() for word in member.split("_"))
                members.append((member, self.type(said, place), member in required, said.get("description")))
        self.blocks.append(self.block(name, schema, bases, own is not None, members))


class WriterOfTypescript(Writer):
    def block(self, name, schema, bases, is_object, members):
        lines = comment_of_typescript(schema.get("description"), "")
        if not is_object:
            said = self.type(schema, name)
            line = f"export type {name} = {said};"
            if len(line) > WIDTH:
                line = f"export type {name} =" + "".join(f"\n  | {one}" for one in said.split(" | ")) + ";"
            return "\n".join([*lines, line])
        extends = f" extends {', '.join(bases)}" if bases else ""
        lines.append(f"export interface {name}{extends} {{")
        for member, said, is_required, description in members:
            lines += comment_of_typescript(description, "  ")
            line = f"  {member}{'' if is_required else '?'}: {said};"
            if len(line) > WIDTH:
                line = f"  {member}{'' if is_required else '?'}:" + "".join(f"\n    | {one}" for one in said.split(" | ")) + ";"
            lines.append(line)
        return "\n".join([*lines, "}"])

    def text(self, order):
        for name in order:
            self.write(name, self.schemas[name])
        return f"/** {ABOUT} */\n\n" + "\n\n".join(self.blocks) + "\n"


class WriterOfPython(Writer):
    def block(self, name, schema, bases, is_object, members):
        description = schema.get("description")
        if not is_object:
            said = self.type(schema, name)
            lines = [f"#: {description}"] if description else []
            line = f"{name}: TypeAlias = {said}"
            if len(line) > WIDTH:
                inner = said.removeprefix("Literal[").removesuffix("]")
                line = f"{name}: TypeAlias = Literal[\n" + "".join(f"    {one},\n" for one in inner.split(", ")) + "]"
            return "\n".join([*lines, line])
        lines = [f"class {name}({', '.join(bases) or 'TypedDict'}):"]
        if description:
            lines += [f'    """{description}"""', ""]
        for member, said, is_required, about in members:
            if about:
                lines.append(f"    #: {about}")
            line = f"    {member}: " + (said if is_required else f"NotRequired[{said}]")
            if len(line) > WIDTH:
                inner = said.removeprefix("Literal[")
                values, _, rest = inner.partition("]")
                literal = "Literal[\n" + "".join(f"            {one},\n" for one in values.split(", ")) + f"        ]{rest}"
                line = f"    {member}: NotRequired[\n        {literal}\n    ]"
            lines.append(line)
        return "\n".join(lines)

    def text(self, order):
        for name in order:
            self.write(name, self.schemas[name])
        head = f'"""{ABOUT}"""\n\nfrom typing import Any, Literal, NotRequired, TypeAlias, TypedDict\n'
        return head + "".join(f"\n{gap(block)}{block}\n" for block in self.blocks)


class WriterOfRust:
    """Answers are read into structs that take what a later release adds; requests are written by hand."""

    roots = ["Problem", "OperationStory", "Answer", "Claim"]

    def __init__(self, schemas):
        self.schemas, self.blocks = schemas, []

    def type(self, schema, place):
        """The type, and whether there may be nothing in its place."""
        if "$ref" in schema:
            name = name_of(schema["$ref"])
            target = self.schemas[name]
            is_named = is_object(target) or "enum" in target
            return (name, False) if is_named else self.type(target, name)
        if "enum" in schema:
            self.words(place, schema)
            return place, None in schema["enum"]
        if "anyOf" in schema:
            found = [self.type(one, place) for one in schema["anyOf"]]
            return next(said for said, _ in found if said), any(nothing for _, nothing in found)
        is_nothing, said = "null" in kinds(schema), "Value"
        for kind in kinds(schema):
            if kind == "string":
                said = "String"
            elif kind == "integer":
                said = "u16" if place.endswith("Status") else "u64"
            elif kind == "number":
                said = "f64"
            elif kind == "boolean":
                said = "bool"
            elif kind == "array":
                said = f"Vec<{self.type(schema.get('items', {}), place)[0]}>"
            elif kind == "object" and "properties" in schema:
                self.write(place, schema)
                said = place
            elif kind == "object":
                more = schema.get("additionalProperties")
                of = self.type(more, place)[0] if isinstance(more, dict) else "Value"
                said = f"BTreeMap<String, {of}>"
        return ("" if kinds(schema) == ["null"] else said), is_nothing

    def words(self, name, schema):
        about = schema.get("description", f"`{name}`, as the API writes it")
        lines = ["words! {", f"    /// {about}.", f"    pub enum {name} {{"]
        for word in schema["enum"]:
            if word is not None:
                variant = "".join(part.title() for part in re.split("[-_]", word))
                lines.append(f'        {variant} = "{word}",')
        self.blocks.append("\n".join([*lines, "    }", "}"]))

    def members(self, name, schema):
        bases, own, required = parts_of(schema)
        found = [member for base in bases for member in self.members(base, self.schemas[base])]
        for member, said in own.items():
            kind, is_nothing = self.type(said, name + "".join(word.title() for word in member.split("_")))
            kind = kind if member in required and not is_nothing else f"Option<{kind}>"
            about = said.get("description")
            lines = [f"    /// {about}."] if about else []
            found.append("\n".join([*lines, f"    pub {'r#' if member == 'type' else ''}{member}: {kind},"]))
        return found

    def write(self, name, schema):
        members = self.members(name, schema)
        about = schema.get("description", f"`{name}`, as the API writes it").rstrip(".")
        lines = [
            f"/// {about}.",
            "#[derive(Debug, Clone, Default, PartialEq, Deserialize)]",
            "#[serde(default)]",
            "#[non_exhaustive]",
            f"pub struct {name} {{",
        ]
        self.blocks.append("\n".join([*lines, *members, "}"]))

    def text(self, order):
        is_base = {name for one in order for name in parts_of(self.schemas[one])[0]}
        for name in order:
            schema = self.schemas[name]
            if "enum" in schema:
                self.words(name, schema)
            elif is_object(schema) and name not in is_base:
                self.write(name, schema)
        said = [
            f"//! {ABOUT}",
            '#![expect(missing_docs, reason = "the document says of a member what there is to say")]',
            "use std::collections::BTreeMap;\n\nuse serde::Deserialize;\nuse serde_json::Value;",
            "use crate::words::words;",
            *self.blocks,
        ]
        line = ["rustfmt", "--edition", "2024", "--emit", "stdout"]
        formatted = subprocess.run(line, input="\n\n".join(said) + "\n", cwd=HERE, text=True, capture_output=True, check=True)
        return formatted.stdout


def gap(block):
    return "\n" if "class " in block else ""


def comment_of_typescript(text, indent):
    return [f"{indent}/** {text} */"] if text else []


def main():
    schemas = json.loads(DOCUMENT.read_text())["components"]["schemas"]
    texts = {
        TYPESCRIPT: WriterOfTypescript(Typescript(), schemas).text(reached(schemas)),
        PYTHON: WriterOfPython(Python(), schemas).text(reached(schemas)),
        RUST: WriterOfRust(schemas).text(reached(schemas, WriterOfRust.roots)),
    }
    stale = []
    for place, said in texts.items():
        if "--check" not in sys.argv:
            place.write_text(said)
        elif not place.exists() or place.read_text() != said:
            stale.append(str(place.relative_to(HERE.parent)))
    if stale:
        sys.exit(f"{', '.join(stale)}: not what docs/openapi.json says\nmend: python3 sdk/shapes.py")


main()
