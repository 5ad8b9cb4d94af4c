"""What runs inside the shared runtime component: imports a program from memory and runs its `main`."""
