# In which role the build has this wrapper: the setup script says by two numbers which platforms it runs on and is for.
# shellcheck shell=bash disable=SC2034

# role_of OFFSET: into $role, as a variable ends and as a wrapper notes it.
role_of() {
    case $1 in
    -1) role=_FOR_BUILD note=BUILD ;;
    0) role='' note=HOST ;;
    1) role=_FOR_TARGET note=TARGET ;;
    *)
        echo "a wrapper in a role that it cannot have: $1" >&2
        return 1
        ;;
    esac
}
