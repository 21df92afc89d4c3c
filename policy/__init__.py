"""What no stack may do, checked by the engine at every preview and up: `pulumi preview --policy-pack policy`.

Each rule is a pure function of one resource's inputs (`policy.rules`), and says in its message what to do.
The program's own settings refuse most of this before anything is declared; the pack is the second lock, for
what a later change to the code brings in.
"""
