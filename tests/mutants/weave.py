# SPDX-License-Identifier: Apache-2.0
"""Writes many mutants into one program.

A mutant of cargo-mutants (`cargo mutants --list --json`) is one small change at one place. Here each becomes a branch at
that place, taken when `crate::mutant::is(number)`: so one build holds them all, and trying one costs a run of the tests
and no build. What does not compile this way is built by itself (run.py).

    is it a - b instead of a + b?      match (a, b) { (l, r) => if is(7) { l - r } else { l + r } }
    || instead of &&, b still lazy     match a { l => if l != is(8) { b } else { l } }
"""

import tree_sitter
import tree_sitter_rust

PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
COMPARE = {"==", "!=", "<", ">", "<=", ">="}


def is_(number):
    return f"crate::mutant::is({number})"


def choose(options, last):
    """`options`: (number, code); the first that is asked for, else `last`."""
    return "".join(f"if {is_(number)} {{ {code} }} else " for number, code in options) + f"{{ {last} }}"


class Weaver:
    def __init__(self, text, mutants):
        """`mutants`: (number, mutant as listed). Those that found their place are in `woven` after `out()`."""
        self.text = text.encode()
        starts = [0]
        for line in self.text.split(b"\n"):
            starts.append(starts[-1] + len(line) + 1)
        self.woven = set()
        self.at, self.bodies = {}, []
        for number, mutant in mutants:
            a, b = mutant["span"]["start"], mutant["span"]["end"]
            span = (starts[a["line"] - 1] + a["column"] - 1, starts[b["line"] - 1] + b["column"] - 1)
            if mutant["genre"] == "FnValue":
                self.bodies.append((span, number, mutant))
            else:
                self.at.setdefault(span, []).append((number, mutant))
        self.tree = PARSER.parse(self.text)

    def out(self):
        return self.render(self.tree.root_node)

    def here(self, start, end, genre):
        found = [m for m in self.at.get((start, end), []) if m[1]["genre"] == genre]
        return found

    def source(self, node, skip=()):
        """The text of a node with its children woven."""
        out, at = [], node.start_byte
        for child in node.children:
            out.append(self.text[at : child.start_byte].decode())
            if child not in skip:
                out.append(self.render(child))
            at = child.end_byte
        out.append(self.text[at : node.end_byte].decode())
        return "".join(out)

    def take(self, found):
        self.woven.update(number for number, _ in found)
        return [(number, mutant["replacement"]) for number, mutant in found]

    def render(self, node):
        way = getattr(self, "on_" + node.type, None)
        return (way and way(node)) or self.source(node)

    def on_const_item(self, node):
        return self.text[node.start_byte : node.end_byte].decode()

    on_static_item = on_const_item

    def on_function_item(self, node):
        body = node.child_by_field_name("body")
        head = self.text[node.start_byte : body.start_byte].decode()
        if " const " in f" {head.split('fn ')[0]} ":
            return self.text[node.start_byte : node.end_byte].decode()
        # Behind `impl Trait` there is one type, and a mutant's is another: those are built one by one.
        hidden = "impl " in head.split("->")[-1] if "->" in head else False
        inside = [] if hidden else [
            (number, mutant)
            for (a, b), number, mutant in self.bodies
            if body.start_byte <= a and b <= body.end_byte and not self.inner(body, a, b)
        ]
        woven = self.source(body)
        first = "".join(f"\nif {is_(n)} {{ return {value}; }}\n" for n, value in self.take(inside))
        return head + "{" + first + woven[1:]

    def inner(self, body, a, b):
        """Whether a function within this body holds the span."""
        todo = list(body.children)
        while todo:
            node = todo.pop()
            if node.start_byte <= a and b <= node.end_byte:
                if node.type == "function_item":
                    return True
                todo += node.children
        return False

    def on_binary_expression(self, node):
        left, op, right = (node.child_by_field_name(f) for f in ("left", "operator", "right"))
        found = self.here(op.start_byte, op.end_byte, "BinaryOperator")
        if not found or "let_condition" in (left.type, right.type):
            return None
        ours = op.type
        options = self.take(found)
        l, r = self.render(left), self.render(right)
        if ours in ("&&", "||"):
            (number, other), = options
            assert {ours, other} == {"&&", "||"}
            how = "!=" if ours == "&&" else "=="
            return f"(match ({l}) {{ l => if l {how} {is_(number)} {{ {r} }} else {{ l }} }})"
        if ours in COMPARE:
            code = choose([(n, f"*l {other} *r") for n, other in options], f"*l {ours} *r")
            return f"(match (&({l}), &({r})) {{ (l, r) => {code} }})"
        code = choose([(n, f"l {other} r") for n, other in options], f"l {ours} r")
        return f"(match (({l}), ({r})) {{ (l, r) => {code} }})"

    def on_compound_assignment_expr(self, node):
        left, op, right = (node.child_by_field_name(f) for f in ("left", "operator", "right"))
        found = self.here(op.start_byte, op.end_byte, "BinaryOperator")
        if not found:
            return None
        place, r = self.render(left), self.render(right)
        code = choose([(n, f"{place} {other} r") for n, other in self.take(found)], f"{place} {op.type} r")
        return f"match ({r}) {{ r => {code} }}"

    def on_unary_expression(self, node):
        op, inner = node.children
        found = self.here(op.start_byte, op.end_byte, "UnaryOperator")
        if not found:
            return None
        (number, _), = self.take(found)
        return f"(match ({self.render(inner)}) {{ x => if {is_(number)} {{ x }} else {{ {op.type}x }} }})"

    def on_match_arm(self, node):
        gone = [m for (a, b), ms in self.at.items() for m in ms if m[1]["genre"] == "MatchArm" and a == node.start_byte]
        pattern = node.child_by_field_name("pattern")
        guard = pattern.child_by_field_name("condition")
        bare = pattern.children[0]
        if guard is None:
            if not gone:
                return None
            (number, _), = self.take(gone)
            new = f"{self.source(pattern)} if !{is_(number)}"
        else:
            if guard.type in ("let_condition", "let_chain"):
                return None
            test = f"({self.render(guard)})"
            for number, value in self.take(self.here(guard.start_byte, guard.end_byte, "MatchArmGuard")):
                test = f"({test} || {is_(number)})" if value == "true" else f"({test} && !{is_(number)})"
            for number, _ in self.take(gone):
                test = f"({test} && !{is_(number)})"
            between = self.text[pattern.start_byte : guard.start_byte].decode()
            new = between + test
        rest, at = [], pattern.end_byte
        for child in node.children:
            if child.start_byte >= pattern.end_byte:
                rest += [self.text[at : child.start_byte].decode(), self.render(child)]
                at = child.end_byte
        return new + "".join(rest)

    def on_field_initializer(self, node):
        return self.field(node, node.child_by_field_name("field"), node.child_by_field_name("value"))

    def on_shorthand_field_initializer(self, node):
        return self.field(node, node.children[0], node.children[0])

    def field(self, node, name, value):
        found = [m for (a, _), ms in self.at.items() for m in ms if m[1]["genre"] == "StructField" and a == node.start_byte]
        base = next((c for c in node.parent.children if c.type == "base_field_initializer"), None)
        if not found or base is None:
            return None
        name, base = (self.text[n.start_byte : n.end_byte].decode() for n in (name, base.children[-1]))
        return f"{name}: " + choose([(n, f"({base}).{name}") for n, _ in self.take(found)], self.render(value))
