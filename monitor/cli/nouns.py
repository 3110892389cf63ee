"""The command line: a noun with verbs, which lists when no verb follows it."""

import click


class Noun(click.Group):
    """A group whose verb `list` may be left out: `outrider models payments` is `outrider models list payments`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the verb `list` in front where none of the group's verbs stands there."""
        verb = args[0] if args else ""
        if verb not in self.commands and verb not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)
